# People, hooks and CI share these commands.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# Images: `make images`, or one by `make image-data`. BUILD_FLAGS: further flags of the build;
# SOURCE: address of the code, a label of the images. Old podmans keep a label with a build argument
# from their cache, so labels that change are set here. CONTAINER: docker or podman; a docker client
# may be installed without its daemon, so the first one that answers is taken.
CONTAINER ?= $(shell for each in docker podman; do \
  $$each version >/dev/null 2>&1 && echo $$each && break; done)
ENGINE = $(or $(CONTAINER),$(error neither docker nor podman answers; start docker's daemon or \
  install podman))
BUILD_FLAGS ?=
SOURCE ?=
LABEL := org.opencontainers.image
DIGESTS ?= compiled/digests.json
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
REVISION = $(shell git rev-parse HEAD)
NAME_data := brainseg-data-python
NAME_trainer := brainseg-trainer-python
NAME_mlflow := brainseg-mlflow
NAME_cli := brainseg-cli-python
FOLDERS := data mlflow cli trainer
TAGS := $(foreach folder,$(FOLDERS),$(NAME_$(folder)):$(VERSION))

.PHONY: run test test-slow test-all cluster-test kubeflow-test check format docs docs-serve images push clean

run: $(READY)  ## the whole chain on built-in synthetic volumes
	$(BIN)/brainseg run --source synthetic:24 --preset demo --output brainseg-runs/demo

# one process for each core, on one thread each; they and the steps that they start keep bytecode
PYTEST := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/pytest --numprocesses logical --dist worksteal

test: $(READY)  ## the fast tests
	$(PYTEST) -m "not slow"

test-slow: $(READY)  ## the tests that `make test` leaves out
	$(PYTEST) -m slow

test-all: $(READY)  ## all tests, with more random examples
	$(PYTEST) --hypothesis-profile thorough

cluster-test: $(READY)  ## the manifests and a run in pods, on the cluster that KUBECONFIG names
	@tests/cluster/check $(VERSION)
	$(BIN)/pytest -m cluster tests/cluster

CHECK ?= tests/kubeflow/test_graphs.py tests/kubeflow/test_failures.py
kubeflow-test: $(READY)  ## a check of the Kubeflow Pipelines at KF_PIPELINES_ENDPOINT
	BRAINSEG_SUBMIT='$(SUBMIT)' PATH="$(abspath $(BIN)):$$PATH" $(BIN)/pytest -m kubeflow $(CHECK)

check: $(READY)  ## style, types, import rules, prose
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell *.md docs manifests images components pipelines
	$(BIN)/python docs/tools/prose.py

docs: $(READY)  ## the documentation into site/; a broken link or anchor fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

docs-serve: $(READY)  ## the documentation at http://127.0.0.1:8000, rebuilt when a page changes
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# uv unpacks the 6 GB of torch in a third of pip's time; it uses the system's certificates
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt uv
	$(BIN)/uv pip install --quiet --system-certs --compile-bytecode --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

images: $(FOLDERS:%=image-%)  ## all images

image-%:
	$(ENGINE) build $(BUILD_FLAGS) --file images/$*/Dockerfile --tag $(NAME_$*):$(VERSION) \
	  --label $(LABEL).version=$(VERSION) --label $(LABEL).revision=$(REVISION) \
	  $(if $(SOURCE),--label $(LABEL).source=$(SOURCE)) .

push:  ## images to REGISTRY, and their digests there to the file DIGESTS
	$(if $(REGISTRY),,$(error name the registry: make push REGISTRY=registry.example/team))
	images/push $(ENGINE) $(REGISTRY) $(DIGESTS) $(TAGS)

clean:
	rm -rf $(VENV) build dist site *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
