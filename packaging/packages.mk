# SPDX-License-Identifier: BSD-2-Clause
# What is shipped: the wheel, the source distribution, the RPMs. Part of the Makefile.

# The same sources give the same bytes, whenever they are packed.
export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 1577836800)

## Ship

.PHONY: sources
sources: ## get the sources of the bundled libbpf, in build/sources
	@tools/sources.sh build/sources

.PHONY: sdist
sdist: sources $(VENV)/.ready ## the source distribution, in build/dist
	@rm -f build/dist/cgnet-*.tar.gz
	@$(BIN)/python -m build --sdist --outdir build/dist . >/dev/null
	@ls build/dist/cgnet-*.tar.gz

.PHONY: wheel
wheel: sources bpf $(VENV)/.ready ## a wheel with the BPF objects and a libbpf of its own, in build/dist
	@rm -f build/dist/cgnet-*.whl
	@$(BIN)/python -m build --wheel --outdir build/dist . >/dev/null
	@$(BIN)/python tools/check_wheel.py build/dist/cgnet-*.whl

.PHONY: test-wheel
test-wheel: ready ## install the wheel where no libbpf is, and see a connection with it, as root
	@$(AS_OWNER) $(MAKE) --no-print-directory sdist wheel
	@$(AS_ROOT) $(BIN)/pytest -p no:cacheprovider tests/shipping/test_wheel.py
