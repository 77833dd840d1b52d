"""How KFP's API says no.

A gRPC status becomes JSON by grpc-gateway's own error handler (backend/src/apiserver/main.go
registers none), its text is the chain of Go errors, its details hold what is meant for users
(UserError.GRPCStatus in backend/src/common/util/error.go).
"""

from enum import Enum


class Code(Enum):
    """gRPC codes with the HTTP status that grpc-gateway gives them (runtime/errors.go)."""

    INVALID_ARGUMENT = (3, 400)
    NOT_FOUND = (5, 404)
    ALREADY_EXISTS = (6, 409)
    PERMISSION_DENIED = (7, 403)
    ABORTED = (10, 409)
    INTERNAL = (13, 500)
    UNAVAILABLE = (14, 503)
    UNAUTHENTICATED = (16, 401)


class Refusal(Exception):
    """An answer that is no success.

    Attributes:
        code: Of gRPC.
        text: The chain of errors, outermost first.
        shown: What is meant for users.
    """

    def __init__(self, code: Code, text: str, shown: str) -> None:
        super().__init__(text)
        self.code, self.text, self.shown = code, text, shown

    def within(self, *doing: str) -> "Refusal":
        """The same error, wrapped as Go's `util.Wrap` does."""
        return Refusal(self.code, ": ".join([*doing, self.text]), self.shown)

    @property
    def status(self) -> int:
        return self.code.value[1]

    @property
    def body(self) -> dict[str, object]:
        number = self.code.value[0]
        detail = {"@type": "type.googleapis.com/google.rpc.Status", "code": number}
        return {"code": number, "message": self.text, "details": [detail | {"message": self.shown}]}


def invalid(message: str) -> Refusal:
    """`util.NewInvalidInputError`."""
    return Refusal(Code.INVALID_ARGUMENT, f"Invalid input error: {message}", message)


def not_found(kind: str, name: str) -> Refusal:
    """`util.NewResourceNotFoundError`."""
    message = f"{kind} {name} not found"
    return Refusal(Code.NOT_FOUND, f"ResourceNotFoundError: {message}", message)


def already_exists(message: str) -> Refusal:
    """`util.NewAlreadyExistError`."""
    return Refusal(Code.ALREADY_EXISTS, f"Already exist error: {message}", message)


def internal(message: str, cause: str) -> Refusal:
    """`util.NewInternalServerError`: users see nothing."""
    text = f"InternalServerError: {message}: {cause}"
    return Refusal(Code.INTERNAL, text, "Internal Server Error")
