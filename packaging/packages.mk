# SPDX-License-Identifier: BSD-2-Clause
# What is shipped: the wheel, the source distribution, the RPMs. Part of the Makefile.

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

.PHONY: rpm
rpm: ready ## source and binary RPMs for OpenCloudOS 9 and 8, in build/dist/rpm
	@tools/deps.sh --rpm $(if $(IS_ROOT),,--check)
	@$(AS_OWNER) $(MAKE) --no-print-directory sdist
	@$(AS_OWNER) $(BIN)/pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
		--require-hashes --requirement packaging/bundled.txt --dest build/vendored
	@test -d build/zig || $(AS_OWNER) $(BIN)/pip install --quiet --disable-pip-version-check \
		--target build/zig --requirement packaging/zig.txt
	@rm -rf build/dist/rpm
	@$(AS_OWNER) tools/build_rpm.sh .oc9 build/dist/rpm/oc9
	@$(AS_OWNER) tools/build_rpm.sh .oc8 build/dist/rpm/oc8
	@for each in build/dist/rpm/oc?/*.rpm packaging/cgnet.spec; do \
		rpmlint --config packaging/rpmlint.toml --strict "$$each" >build/rpmlint.txt || \
			{ cat build/rpmlint.txt >&2; exit 1; }; \
	done

.PHONY: test-rpm
test-rpm: rpm ## install, run, upgrade and remove the RPMs in roots of their own, as root
	@$(AS_ROOT) $(BIN)/pytest -p no:cacheprovider tests/shipping/test_rpm.py
