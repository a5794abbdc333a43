# Everything a clone needs; `make help` lists it. Variables: MODEL, FILE, HOST, PORT, DATA, SIZE, JOBS, ARGS.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
CLIENTS := .venv-clients
# The generator of the manual, apart: a server needs none of it.
MANUAL := .venv-manual
PACKED := server/api/web/manual.zip
JAVASCRIPT := tests/clients/js
PAGE := tests/web/js
RUN := $(VENV)/bin/python
KERNELS := $(wildcard server/inference/kernels/source/*) server/inference/kernels/sources.py
COMPILED := build/kernels.done
# make itself sets CC where the caller does not.
COMPILE = $(RUN) -m server.inference.kernels.compiler $(if $(filter-out default undefined,$(origin CC)),--compiler '$(CC)')
MODEL := models/bge-small-zh-v1.5
ARTIFACT := $(MODEL)/onnx-int8
FLOAT := $(MODEL)/onnx-fp32
# Not from the environment: many shells set HOST, and the server must not listen wider for it.
HOST := 127.0.0.1
PORT := 8000
DATA := data
SIZE := 12x768
BUILDER := docker build
# Processes of `make test`, for two cores: many tests wait for a server or a timer.
JOBS := 3
# Messages are Chinese in a Chinese locale, else English: $(call say,ENGLISH,CHINESE).
say = $(if $(filter zh% ZH%,$(firstword $(LC_ALL) $(LC_MESSAGES) $(LANG))),$(2),$(1))
# What to do where packages cannot be downloaded, after the step that failed.
offline = { echo '$(call say,The packages could not be installed: see above. Without a network: make a bundle on a machine that has one (make bundle; docs/en/how-to/deploy.md). With a mirror of the package index: PIP_INDEX_URL=https://mirror.example/simple make ...,未能安装所需的包，原因见上。没有网络时：在能上网的机器上制作离线包（make bundle，见 docs/zh/how-to/deploy.md）。使用镜像：PIP_INDEX_URL=https://镜像地址/simple make ...)' >&2; exit 1; }
# $(call pip,ARGUMENTS): install packages, and say what to do where that fails.
pip = @echo "pip install $(1)"; $(RUN) -m pip install --quiet --disable-pip-version-check $(1) || $(offline)
export ORT_DISABLE_TELEMETRY := 1
export PYTHONDONTWRITEBYTECODE := 1

.DEFAULT_GOAL := help
.PHONY: help install kernels dev install-any install-otel export artifact serve index search test test-slow test-monitoring test-fuzz test-kernels test-cpu test-stress test-load test-mutants test-torch test-clients test-examples test-page test-docs manual bundle test-bundle install-mcp test-mcp install-databases test-databases install-bulk test-bulk image wheels test-image test-kubernetes test-wheel test-first-hour check fix bench compare shapes lock clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

# --no-deps: the locks are complete, and pip would otherwise look for newer releases of packages that
# another one names with an extra, and refuse them for want of a hash.
install: $(VENV)/run.done $(COMPILED) ## create .venv with the locked packages to export and serve, and compile the kernels where there is a C compiler

$(VENV)/run.done: locks/run.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo '$(call say,Python 3.11 or newer is needed: set PYTHON=...,需要 Python 3.11 或更新版本：请设置 PYTHON=...)'; exit 1; }
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(call pip,--no-deps --require-hashes -r locks/run.txt)
	@touch $@

# Said once, not by every target: without a compiler ONNX Runtime computes the models.
$(COMPILED): $(VENV)/run.done $(KERNELS)
	@$(COMPILE) || true
	@mkdir -p $(@D) && touch $@

kernels: $(VENV)/run.done ## compile the kernels, with CC if it is given; says why where that cannot be
	@$(COMPILE)
	@mkdir -p $(dir $(COMPILED)) && touch $(COMPILED)

dev: $(VENV)/dev.done $(COMPILED) ## add the locked packages for tests and checks

$(VENV)/dev.done: $(VENV)/run.done locks/dev.txt
	$(call pip,--no-deps --require-hashes -r locks/dev.txt)
	@touch $@

install-any: install ## add optimum, transformers and torch, to export other architectures
	$(call pip,'.[export-any]')

install-otel: install ## add OpenTelemetry, for serve with --trace-endpoint
	$(call pip,--no-deps --require-hashes -r locks/otel.txt)

install-mcp: install ## add the MCP server, by which agents search: python -m server mcp
	$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r locks/mcp.txt

install-databases: install ## add the clients of Qdrant, Milvus and PostgreSQL, which can keep collections elsewhere
	$(call pip,--no-deps --require-hashes -r locks/databases.txt)

install-bulk: install ## add Dask and Arrow, to embed a corpus: python -m server bulk embed
	$(call pip,--no-deps --require-hashes -r locks/bulk.txt)

export: install ## MODEL=folder, .tar or hub id: write and verify MODEL/onnx-int8, or models/NAME/onnx-int8 (ARGS="--precision fp32" ...)
	$(RUN) -m export $(MODEL) $(ARGS)

artifact: install ## export MODEL for the targets below, if anything it is made from has changed
	@# A hub's model is exported by its id and kept apart: its folder has the artifact and nothing to export.
	@test ! -e $(MODEL)/config.json -a ! -e $(MODEL)/modules.json -a -e $(ARTIFACT)/manifest.json || $(RUN) -m export $(MODEL) --out $(ARTIFACT)

serve: install artifact ## start the server on HOST:PORT (ARGS="--help" lists settings)
	$(RUN) -m server serve --host $(HOST) --port $(PORT) --model $(ARTIFACT) --data $(DATA) $(ARGS)

index: install artifact ## FILE=txt, jsonl, csv or folder: add its documents
	@test -n "$(FILE)" || { echo '$(call say,usage: make index FILE=docs.txt,用法：make index FILE=文档.txt)'; exit 2; }
	$(RUN) -m server index "$(FILE)" --model $(ARTIFACT) --data $(DATA) $(ARGS)

search: install artifact ## ask the indexed documents
	$(RUN) -m server search --model $(ARTIFACT) --data $(DATA) $(ARGS)

test: dev artifact ## run the tests (JOBS=1 for one process)
	$(RUN) -m pytest -q -n $(JOBS) --dist worksteal $(ARGS)

test-slow: dev ## run the slow tests too
	$(RUN) -m pytest -q -m 'not torch and not page and not bulk' $(ARGS)

test-monitoring: dev ## check alerts and dashboard with a real Prometheus (Debian: apt install prometheus)
	$(RUN) -m pytest -q -m 'slow or not slow' tests/telemetry/test_monitoring.py tests/telemetry/test_prometheus.py $(ARGS)

# Two minutes on two cores; six at most.
test-fuzz: dev ## try requests at random: 100,000 broken bodies, 5,000 cases of the OpenAPI document
	timeout 360 $(RUN) -m pytest -q -m fuzz $(ARGS)

# Compiles the kernels with checks of memory and arithmetic; needs gcc with libasan.
test-kernels: dev artifact ## run the kernels with AddressSanitizer and UBSan, on random networks and broken files
	$(RUN) -m pytest -q -m 'slow or not slow' tests/inference/kernels $(ARGS)

# Exports the model with 7-bit weights first: two minutes in all.
test-cpu: dev artifact ## run the model as on a CPU without VNNI (needs Debian's qemu-user)
	$(RUN) -m pytest -q -m cpu $(ARGS)

# Five minutes on two cores.
# Power cuts and damage take ROUNDS, and the model beside a server SECONDS; SEED gives other ones.
test-stress: dev artifact ## take memory, files, network, time, power and CPU away from servers, and compare them with a model
	$(RUN) -m pytest -q -m stress $(ARGS)

# Eight minutes, and six more where strace is installed.
test-load: dev artifact ## overload, misbehaving clients and egress, minutes each (TEXTS=folder); fails where a promise does not hold
	$(RUN) -m tests.stress.runs.overload --model $(ARTIFACT) $(if $(TEXTS),--texts $(TEXTS))
	$(RUN) -m tests.stress.runs.soak --model $(ARTIFACT) $(if $(TEXTS),--texts $(TEXTS))
	$(RUN) -m tests.stress.runs.egress --model $(ARTIFACT)

test-mutants: dev artifact ## change one line of the product at a time: which slips would no test notice? (ARGS="--count 100 --seed 0 server/store")
	$(RUN) -m tests.support.mutants --jobs $(JOBS) $(ARGS)

test-torch: dev install-any ## compare families with torch and sentence-transformers, and run the tests of the optimum route
	$(call pip,'sentence-transformers<5.2')
	$(RUN) -m pytest -q -m torch $(ARGS)

# npm: where it is missing, the tests of JavaScript's client say so and are skipped.
$(CLIENTS)/run.done: locks/clients.txt $(JAVASCRIPT)/package-lock.json
	test -x $(CLIENTS)/bin/python || $(PYTHON) -m venv $(CLIENTS)
	$(CLIENTS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r locks/clients.txt
	if command -v npm >/dev/null; then npm ci --prefix $(JAVASCRIPT) --ignore-scripts --no-audit --no-fund --silent; fi
	@touch $@

test-clients: install artifact $(CLIENTS)/run.done ## speak to a server with the packages its clients use, JavaScript's with node
	$(CLIENTS)/bin/python -m pytest -q -c tests/clients/pytest.ini tests/clients $(ARGS)

test-examples: install artifact $(CLIENTS)/run.done ## run the scripts with LangChain and LlamaIndex, and the notebook, of examples/
	$(CLIENTS)/bin/python -m pytest -q -c tests/clients/pytest.ini tests/clients/test_example_scripts.py $(ARGS)

$(MANUAL)/run.done: locks/manual.txt
	test -x $(MANUAL)/bin/python || $(PYTHON) -m venv $(MANUAL)
	$(MANUAL)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r locks/manual.txt
	@touch $@

manual: $(MANUAL)/run.done ## build the documents as pages, for a browser in build/manual and for a server at /manual
	$(MANUAL)/bin/python docs/site/build.py --out build/manual --pack $(PACKED)

# READER names a Python with sentence-transformers, for the pages that begin with a reader's own program.
test-docs: dev artifact manual ## read the built manual in a browser, and type the commands of its pages (READER=python)
	$(if $(READER),INKWELL_READER_PYTHON=$(READER)) $(RUN) -m pytest -q -m docs $(ARGS)

# Two minutes. npm brings axe-core; where it is missing, the tests that need it are skipped.
test-page: dev artifact ## use the search page in Chromium (Debian: apt install chromium chromium-driver; SCREENSHOTS=1 stores those of the documents)
	if command -v npm >/dev/null; then npm ci --prefix $(PAGE) --ignore-scripts --no-audit --no-fund --silent; fi
	$(RUN) -m pytest -q -m page tests/web $(ARGS)

test-mcp: dev install-mcp ## ask the MCP server with the official client, over both transports
	$(RUN) -m pytest -q tests/cli/test_mcp.py $(ARGS)

# A minute and a half on two cores.
test-databases: dev install-databases ## run the suite that every vector database passes, on real ones (with slow forms too: ARGS="-m 'slow or not slow'")
	$(call pip,--no-deps --require-hashes -r locks/databases-dev.txt)
	$(RUN) -m pytest -q -n $(JOBS) --dist loadfile $(wildcard tests/databases tests/collections/external tests/deploy/test_setups.py) $(ARGS)

# The cluster of the tests is on this machine; a killed run is a minute of the four.
test-bulk: dev install-bulk artifact ## embed a corpus on Dask, with processes that are killed, and load it into a server
	$(RUN) -m pytest -q -m bulk tests/bulk $(ARGS)

bundle: artifact manual ## one archive to install without a network (ARGS="--python 3.12 --machine aarch64")
	$(RUN) -m deploy.bundle --model $(ARTIFACT) --out build/bundle $(ARGS)

# Root, debootstrap and bubblewrap; seven minutes.
test-bundle: artifact ## install a bundle on a bare system without a network, and serve
	rm -rf build/prove
	$(RUN) -m deploy.bundle --model $(ARTIFACT) --python 3.11 --out build/prove
	$(RUN) -m deploy.prove build/prove/*.tar.gz $(ARGS)
	$(RUN) -m deploy.boot build/prove/*.tar.gz

# kubectl: Debian's package kubernetes-client, or another one with kustomize.
test-kubernetes: dev ## compare deploy/kubernetes with the schemas of Kubernetes, and with the settings and metrics of the server
	test -x build/kubernetes/bin/python || $(PYTHON) -m venv build/kubernetes
	build/kubernetes/bin/python -m pip install --quiet --disable-pip-version-check kubernetes-validate==1.37.0
	$(RUN) -m pytest -q tests/deploy/test_kubernetes.py $(ARGS)

# BUILDER="podman build" or "buildah build" works too; ARGS="--build-arg PIP_INDEX_URL=..." names a mirror.
image: ## build a container image of this clone, with the model (BUILDER, ARGS)
	$(BUILDER) -t inkwell $(ARGS) .

wheels: install ## download the packages to build/wheels, to build the image without a network
	$(RUN) -m deploy.image --wheels

# Root, debootstrap, buildah and bubblewrap; a few minutes.
test-image: install ## build the image without a network, and serve from it
	$(RUN) -m deploy.image $(ARGS)

test-wheel: dev wheels ## install the wheel into a new environment, and let it fetch its model from a hub on this machine
	$(RUN) -m pytest -q -m slow tests/deploy/test_wheel.py $(ARGS)

test-first-hour: ## type the commands of both READMEs into a fresh clone (ARGS="--language zh")
	$(PYTHON) -m tests.first_hour $(ARGS)

check: dev ## lint, format and types
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

fix: dev ## format and apply lint fixes
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

bench: dev artifact ## measure speed here (TEXTS=folder with real texts), and quality (STS=pairs.tsv, BEIR=folder with questions and answers)
	$(RUN) -m benchmarks.encode --model $(ARTIFACT) --kernels
	$(RUN) -m benchmarks.lanes --model $(ARTIFACT) $(if $(TEXTS),--texts $(TEXTS))
	$(RUN) -m benchmarks.startup --model $(ARTIFACT)
	$(RUN) -m benchmarks.serve --model $(ARTIFACT) $(if $(TEXTS),--texts $(TEXTS))
	$(RUN) -m benchmarks.latency --model $(ARTIFACT) $(if $(TEXTS),--texts $(TEXTS))
	$(RUN) -m benchmarks.priority --model $(ARTIFACT) $(if $(TEXTS),--texts $(TEXTS))
	$(RUN) -m benchmarks.memory --model $(ARTIFACT) $(if $(TEXTS),--texts $(TEXTS))
	$(RUN) -m benchmarks.index
	$(RUN) -m benchmarks.ingest --model $(ARTIFACT)
	$(RUN) -m benchmarks.office --model $(ARTIFACT)
	$(RUN) -m benchmarks.dialects --model $(ARTIFACT) $(if $(TEXTS),--texts $(TEXTS))
	$(if $(STS)$(BEIR),$(RUN) -m export $(MODEL) --precision fp32 --out $(FLOAT))
	$(if $(STS),$(RUN) -m benchmarks.quality --model $(ARTIFACT) --float $(FLOAT) --sts $(STS))
	$(if $(BEIR),$(RUN) -m benchmarks.retrieval --model $(ARTIFACT) --float $(FLOAT) --beir $(BEIR))

# Installs gigabytes under build/contenders the first time.
compare: dev artifact ## the same requests to other servers and libraries (TEXTS=folder, STS=pairs.tsv, ARGS="--only NAME,...")
	$(RUN) -m benchmarks.comparison.compare --model $(ARTIFACT) $(if $(TEXTS),--texts $(TEXTS)) $(if $(STS),--sts $(STS)) $(ARGS)

# Exports for a quarter of an hour and installs gigabytes the first time; 24x1024 needs 8 GB of memory.
shapes: dev artifact ## larger models, random weights: beside sentence-transformers, then alone (TEXTS=folder, SIZE=24x1024, ARGS="--only NAME,...")
	$(RUN) -m benchmarks.comparison.shapes --sizes $(SIZE) $(if $(TEXTS),--texts $(TEXTS)) $(ARGS)
	$(RUN) -m benchmarks.encode --model build/shapes/$(SIZE)/onnx-int8
	$(RUN) -m benchmarks.serve --model build/shapes/$(SIZE)/onnx-int8 $(if $(TEXTS),--texts $(TEXTS))
	$(RUN) -m benchmarks.memory --model build/shapes/$(SIZE)/onnx-int8 $(if $(TEXTS),--texts $(TEXTS))

lock: ## renew locks/ from pyproject.toml, and those of the clients (needs uv and npm on PATH)
	uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate -q --extra export --extra office --extra watch -o locks/run.txt
	uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate -q --extra dev -c locks/run.txt -o locks/dev.txt
	uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate -q --extra otel -c locks/run.txt -o locks/otel.txt
	uv pip compile locks/manual.in --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate -q -o locks/manual.txt
	uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate -q --extra mcp -c locks/run.txt -o locks/mcp.txt
	uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate -q --extra databases -c locks/run.txt -c locks/dev.txt -o locks/databases.txt
	uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate -q --extra databases-dev -c locks/run.txt -c locks/dev.txt -c locks/databases.txt -o locks/databases-dev.txt
	uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate -q --extra bulk -c locks/run.txt -o locks/bulk.txt
	uv pip compile locks/bundle.in --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate -q -o locks/bundle.txt
	uv pip compile locks/clients.in --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate -q -o locks/clients.txt
	npm install --prefix $(JAVASCRIPT) --package-lock-only --no-audit --no-fund
	npm install --prefix $(PAGE) --package-lock-only --no-audit --no-fund

clean: ## remove environments, compiled kernels and exported artifacts, keep data
	rm -rf $(VENV) server/inference/kernels/kernels.so $(COMPILED) $(CLIENTS) $(MANUAL) build/manual build/manual-source $(PACKED) $(JAVASCRIPT)/node_modules $(PAGE)/node_modules models/*/onnx-int8 models/*/onnx-fp32
