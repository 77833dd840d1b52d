# People, hooks and CI share these commands.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: run test cluster-test check format clean

run: $(READY)  ## the whole chain on built-in synthetic volumes
	$(BIN)/brainseg run --source synthetic:24 --preset demo --output brainseg-runs/demo

test: $(READY)  ## all tests
	$(BIN)/pytest

cluster-test: $(READY)  ## the manifests and a run in pods, on the cluster that KUBECONFIG names
	@kubectl get --raw=/readyz --request-timeout=10s >/dev/null || { echo "$$NO_CLUSTER"; exit 1; }
	$(BIN)/pytest -m cluster tests/cluster

define NO_CLUSTER
make cluster-test needs a Kubernetes cluster of one node on this machine, kubectl and KUBECONFIG.
Its node must hold the images that manifests/overlays/test names (`make images`, then load them),
and an S3 service must answer at the address in manifests/overlays/test/settings.env.
endef
export NO_CLUSTER

check: $(READY)  ## style, types, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# uv unpacks the 6 GB of torch in a third of pip's time; it uses the system's certificates
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt uv
	$(BIN)/uv pip install --quiet --native-tls --compile-bytecode --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
