import numpy as np
import pytest

URL = "/v2/models/brainseg/infer"


def body(image, **changes):
    tensor = {
        "name": "image",
        "shape": list(image.shape),
        "datatype": "UINT8",
        "data": image.ravel().tolist(),
    }
    return {"id": "one", "inputs": [tensor | changes]}


def test_a_tensor_returns_the_probability(connect, served, image):
    answer = connect().post(URL, json=body(image))
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert (found["id"], found["model_name"], found["model_version"]) == ("one", "brainseg", "0")
    (output,) = found["outputs"]
    assert (output["name"], output["datatype"]) == ("probability", "FP32")
    probability = np.array(output["data"], np.float32).reshape(output["shape"])
    np.testing.assert_array_equal(probability, served.current.segmenter(image)[0])


def test_nested_data_and_a_version_in_the_address(connect, image):
    client = connect()
    flat = client.post(URL, json=body(image)).json()["outputs"]
    nested = client.post(
        "/v2/models/brainseg/versions/0/infer", json=body(image, data=image.tolist())
    )
    assert nested.json()["outputs"] == flat


def test_the_metadata_of_the_model(connect):
    found = connect().get("/v2/models/brainseg").json()
    assert found["inputs"] == [{"name": "image", "datatype": "UINT8", "shape": [-1, -1, -1, 3]}]
    assert found["outputs"][0]["shape"] == [-1, -1, -1]
    assert found["versions"] == ["0"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"shape": [5, 32, 40, 4]}, r"\[slices, height, width, 3\]"),
        ({"shape": [5, 32, 40]}, "expected"),
        ({"shape": [5, 32, 41, 3]}, "not 19680 numbers"),
        ({"shape": [100000, 100000, 1000, 3]}, "max_volume_mib"),
        ({"datatype": "BYTES"}, "expected UINT8, INT16, FP32"),
        ({"data": [1, [2]]}, "array of one shape"),
        ({"data": ["a"] * 19200}, "numbers"),
        ({"data": [300] * 19200}, "from 300 to 300, not UINT8"),
        ({"data": [0.5] * 19200}, "not whole numbers"),
        ({"data": [10**30] * 19200}, "numbers"),
        ({"more": 1}, "more"),
    ],
)
def test_bad_tensors(connect, image, changes, reason):
    answer = connect().post(URL, json=body(image, **changes))
    assert answer.status_code == 400, answer.text
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(answer.json()["error"])


@pytest.mark.parametrize(
    "content", [b"garbage", b"[" * 100_000, b"{}", b"[]", b'{"inputs": []}', b"\xff", b"1" * 9999]
)
def test_bodies_that_are_no_request(connect, content):
    answer = connect().post(URL, content=content)
    assert answer.status_code == 400
    assert "\n" not in answer.json()["error"]


def test_nan(connect, image):
    text = str(body(image, datatype="FP32", data=["X"])).replace("'X'", "NaN" + ",1" * 19199)
    answer = connect().post(URL, content=text.replace("'", '"').encode())
    assert (answer.status_code, "nan" in answer.json()["error"]) == (400, True)
