# SPDX-License-Identifier: BSD-2-Clause
# What is shipped: the wheel, the source distribution, the RPMs. Part of the Makefile.

## Ship

.PHONY: sources
sources: ## get the sources of the bundled libbpf, in build/sources, by apt-get or from upstream
	@PYTHON=$(PYTHON) tools/sources.sh build/sources

.PHONY: sdist
sdist: ready ## the source distribution, in build/dist
	@$(AS_OWNER) $(MAKE) --no-print-directory build-sdist

.PHONY: wheel
wheel: ready ## a wheel with the BPF objects and a libbpf of its own, in build/dist
	@$(AS_OWNER) $(MAKE) --no-print-directory build-wheel

.PHONY: build-sdist
build-sdist: sources $(VENV)/.ready
	@rm -f build/dist/cgnet_ebpf-*.tar.gz
	@$(BIN)/python -m build --sdist --outdir build/dist . >/dev/null
	@ls build/dist/cgnet_ebpf-*.tar.gz

.PHONY: build-wheel
build-wheel: sources bpf $(VENV)/.ready
	@rm -f build/dist/cgnet_ebpf-*.whl
	@$(BIN)/python -m build --wheel --outdir build/dist . >/dev/null
	@$(BIN)/python tools/check_wheel.py build/dist/cgnet_ebpf-*.whl

.PHONY: test-wheel
test-wheel: sdist wheel ## install the wheel where no libbpf is, and see a connection with it, as root
	@$(AS_ROOT) $(BIN)/pytest -p no:cacheprovider tests/shipping/test_wheel.py

.PHONY: rpm
rpm: rpm-oc9 rpm-oc8 ## source and binary RPMs for OpenCloudOS 9 and 8, in build/dist/rpm

.PHONY: rpm-tools
rpm-tools: ready
	@tools/deps.sh --rpm $(if $(IS_ROOT),,--check)

# With the system's libraries; so its source RPM takes a source distribution without theirs.
.PHONY: rpm-oc9
rpm-oc9: rpm-tools ## the RPMs for OpenCloudOS 9 alone, which take no bundled sources
	@rm -rf build/dist/rpm/oc9 build/plain-sdist
	@$(AS_OWNER) env CGNET_SYSTEM_LIBBPF=1 $(BIN)/python -m build --sdist --outdir build/plain-sdist . >/dev/null
	@$(AS_OWNER) tools/build_rpm.sh .oc9 build/dist/rpm/oc9
	@$(call ask_rpmlint,build/dist/rpm/oc9/*.rpm packaging/cgnet.spec)

.PHONY: rpm-oc8
rpm-oc8: rpm-tools sdist ## the RPMs for OpenCloudOS 8 alone
	@$(AS_OWNER) $(BIN)/pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
		--require-hashes --requirement packaging/bundled.txt --dest build/vendored
	@test -d build/zig || $(AS_OWNER) $(BIN)/pip install --quiet --disable-pip-version-check \
		--target build/zig --requirement packaging/zig.txt
	@rm -rf build/dist/rpm/oc8
	@$(AS_OWNER) tools/build_rpm.sh .oc8 build/dist/rpm/oc8
	@$(call ask_rpmlint,build/dist/rpm/oc8/*.rpm)

ask_rpmlint = for each in $(1); do \
	rpmlint --config packaging/rpmlint.toml --strict "$$each" >build/rpmlint.txt || \
		{ cat build/rpmlint.txt >&2; exit 1; }; \
	done

# Not in CI: each line takes minutes.
.PHONY: test-install
test-install: ready ## try the README's install lines in fresh roots of Debian 12 and 13, as root
	@tools/deps.sh --roots $(if $(IS_ROOT),,--check)
	@$(AS_ROOT) $(BIN)/pytest -p no:cacheprovider tests/shipping/test_install.py

.PHONY: test-rpm
test-rpm: rpm ## install, run, upgrade and remove the RPMs in roots of their own, as root
	@$(AS_ROOT) $(BIN)/pytest -p no:cacheprovider tests/shipping/test_rpm.py
