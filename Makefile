# SPDX-License-Identifier: BSD-2-Clause
# Every entry point of the project. `make help` lists them.

.DEFAULT_GOAL := build
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules
SHELL := /bin/bash

# The system's Python first: what is built with it also runs under sudo. Override: make PYTHON=…
PYTHON ?= $(firstword $(foreach p,/usr/bin/python3 python3.13 python3.12 python3.11 python3,\
	$(shell command -v $(p) >/dev/null && \
	$(p) -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(p))))
VENV := .venv
BIN := $(VENV)/bin
PREFIX ?= /usr/local
CLANG ?= clang
LLVM_STRIP ?= llvm-strip
# libbpf's headers, where they aren't the system's: a folder that has bpf/bpf_helpers.h.
LIBBPF_INCLUDE ?=
HOST_ARCH := $(shell uname -m | sed 's/x86_64/x86/; s/aarch64/arm64/')
ARCH ?= $(HOST_ARCH)

# Paths in the objects are relative and the debug information is cut, so that a build from any
# folder gives the same bytes. BTF stays.
BPF_CLANG = $(CLANG) -g -O2 -target bpf -D__TARGET_ARCH_$(ARCH) -Ibpf \
	$(addprefix -I,$(LIBBPF_INCLUDE)) -Wall -Wextra -Werror -Wno-unused-parameter -fdebug-prefix-map=$(CURDIR)=.
# Each source gives two objects, programs at functions give one: docs/design/objects.md tells why.
BPF_TYPED := -mcpu=v3 -DTYPED=1
BPF_RAW := -mcpu=v2 -DTYPED=0
BPF_PROBE := bpf/probe.bpf.c
BPF_FUNCTIONS := $(wildcard bpf/*_functions.bpf.c)
BPF_SOURCES := $(wildcard bpf/*.bpf.c)
# Programs that seldom run gain nothing from typed arguments: the raw object runs on every kernel.
BPF_RAW_ALONE := bpf/sockets.bpf.c
# What verifiers of raw programs don't take in one object: its parts run side by side there.
BPF_TYPED_ALONE := bpf/session.bpf.c
# Objects for another architecture, as by ARCH=arm64, don't take the place of this one's.
BPF_FOLDER := $(if $(filter $(ARCH),$(HOST_ARCH)),src/cgnet/_bpf,build/bpf/$(ARCH))
BPF_RAW_SOURCES := $(filter-out $(BPF_PROBE) $(BPF_TYPED_ALONE),$(BPF_SOURCES))
BPF_TYPED_SOURCES := $(filter-out $(BPF_PROBE) $(BPF_FUNCTIONS) $(BPF_RAW_ALONE),$(BPF_SOURCES))
BPF_OBJECTS := $(BPF_PROBE:bpf/%.c=$(BPF_FOLDER)/%.o) \
	$(BPF_RAW_SOURCES:bpf/%.bpf.c=$(BPF_FOLDER)/%.raw.bpf.o) \
	$(BPF_TYPED_SOURCES:bpf/%.bpf.c=$(BPF_FOLDER)/%.typed.bpf.o)
BPF_HEADERS := bpf/vmlinux.h $(wildcard bpf/*/*.h)
C_FILES := $(BPF_SOURCES) $(filter-out bpf/vmlinux.h,$(BPF_HEADERS))
PY_FILES := src tools tests bench hatch_build.py

IS_ROOT := $(filter 0,$(shell id -u))
# Root's part of a run leaves nothing of root's in the tree: no bytecode, no caches.
AS_ROOT := $(if $(IS_ROOT),,sudo) env PYTHONDONTWRITEBYTECODE=1
AS_OWNER := tools/as_owner.sh

.PHONY: help
help: ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | \
		while IFS=$$'\t' read -r target text; do printf '%-14s %s\n' "$$target" "$$text"; done

## Build

.PHONY: build
build: bpf $(VENV)/.ready ## everything that .venv/bin/cgnet needs
	@$(BIN)/python -m compileall -q src/cgnet

.PHONY: bpf
bpf: $(BPF_OBJECTS) ## the BPF objects; with ARCH=arm64 those for arm64, in build/bpf/arm64
	@rm -f $(filter-out $(BPF_OBJECTS),$(wildcard $(BPF_FOLDER)/*.bpf.o))

define compile_bpf
@command -v $(CLANG) $(LLVM_STRIP) >/dev/null && test -e $(or $(LIBBPF_INCLUDE),/usr/include)/bpf/bpf_helpers.h || \
	{ echo "the build needs clang, llvm and libbpf's headers: run 'sudo make deps'" >&2; exit 1; }
@mkdir -p $(@D)
$(BPF_CLANG) $(1) -c $< -o $@
$(LLVM_STRIP) -g $@
endef

$(BPF_FOLDER)/%.typed.bpf.o: bpf/%.bpf.c $(BPF_HEADERS) Makefile
	$(call compile_bpf,$(BPF_TYPED))

$(BPF_FOLDER)/%.raw.bpf.o: bpf/%.bpf.c $(BPF_HEADERS) Makefile
	$(call compile_bpf,$(BPF_RAW))

$(BPF_FOLDER)/probe.bpf.o: $(BPF_PROBE) bpf/vmlinux.h Makefile
	$(call compile_bpf,-mcpu=v3)

$(VENV)/.ready: pyproject.toml
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or newer with venv found: run 'sudo make deps'" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	CGNET_SYSTEM_LIBBPF=1 $(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

.PHONY: deps
deps: ## install the system packages that building and testing need (root)
	tools/deps.sh --containers

.PHONY: vmlinux
vmlinux: ## write bpf/vmlinux.h anew from the running kernel's BTF
	$(PYTHON) tools/gen_vmlinux.py --clang '$(BPF_CLANG)' --bpf bpf \
		--way='$(BPF_TYPED) $(BPF_TYPED_SOURCES)' --way='$(BPF_RAW) $(BPF_RAW_SOURCES)' bpf/vmlinux.h

.PHONY: gen
gen: $(VENV)/.ready ## write src/cgnet/records/_layouts.py anew from bpf/abi
	$(BIN)/python tools/gen_layouts.py --clang $(CLANG) bpf/abi src/cgnet/records/_layouts.py
	$(BIN)/ruff format --quiet src/cgnet/records/_layouts.py

## Test

.PHONY: test
test: ready ## the whole test suite; tests/kernel takes root
	@failed=0; \
	$(MAKE) --no-print-directory test-unit || failed=1; \
	$(MAKE) --no-print-directory test-kernel || failed=1; \
	$(MAKE) --no-print-directory test-guests || failed=1; \
	exit $$failed

.PHONY: test-unit
test-unit: ready ## tests that need no root
	@$(AS_OWNER) $(BIN)/pytest tests/unit

.PHONY: test-kernel
test-kernel: ready ## tests on the running kernel, as root
	@test -n "$(IS_ROOT)" || echo "tests/kernel load BPF programs: they run with sudo"
	@tools/deps.sh --containers $(if $(IS_ROOT),,--check)
	@$(AS_ROOT) $(BIN)/pytest -p no:cacheprovider tests/kernel

# What this host's kernel can't show: typed programs and their substitutes before verifiers that are old.
GUESTS := --kernel 5.10 --kernel 6.1 --layout v2 --part commands

.PHONY: test-guests
test-guests: ready ## each command in guests of two older kernels, as root
	@tools/deps.sh --vm $(if $(IS_ROOT),,--check)
	@$(AS_ROOT) $(BIN)/python tests/vm/run.py $(GUESTS) --untold

.PHONY: test-vm
test-vm: ready ## the kernel tests in guests of Debian's kernels, as root; writes docs/kernels.md
	@test -n "$(IS_ROOT)" || echo "tests/vm share this host's files with guests: they run with sudo"
	@tools/deps.sh --vm $(if $(IS_ROOT),,--check)
	@$(AS_ROOT) tools/deps.sh --rivals || true
	@$(AS_OWNER) $(MAKE) --no-print-directory bpf ARCH=arm64
	@$(AS_ROOT) $(BIN)/python tests/vm/arm64.py
	@$(AS_ROOT) $(BIN)/python tests/vm/arm64_guests.py
	@$(AS_ROOT) $(BIN)/python tests/vm/run.py $(VM)

.PHONY: test-arm64
test-arm64: ready ## each command in guests of two kernels for arm64, emulated, as root
	@tools/deps.sh --vm $(if $(IS_ROOT),,--check)
	@$(AS_OWNER) $(MAKE) --no-print-directory bpf ARCH=arm64
	@$(AS_ROOT) $(BIN)/python tests/vm/arm64_guests.py $(ARM64)

# KERNEL is the path of any kernel's image; MODULES its modules' folder, LAYOUT one of v2, hybrid, v1.
.PHONY: test-kernel-image
test-kernel-image: ready ## each command in guests of the kernel whose image is KERNEL, as root
	@test -n "$(KERNEL)" || { echo "which kernel? KERNEL=/path/to/bzImage [LAYOUT=v1] [MODULES=/lib/modules/RELEASE]" >&2; exit 2; }
	@tools/deps.sh --vm $(if $(IS_ROOT),,--check)
	@$(AS_ROOT) $(BIN)/python tests/vm/image.py $(KERNEL) \
		$(if $(LAYOUT),--layout $(LAYOUT)) $(if $(MODULES),--modules $(MODULES))

.PHONY: test-all
test-all: ## lint, test, and test-vm in the place of test-guests
	@failed=0; \
	for each in lint test-unit test-kernel test-vm; do $(MAKE) --no-print-directory $$each || failed=1; done; \
	exit $$failed

# FAULTS are options of the runner: FAULTS='--only firewall-drop --family 4', or --help.
.PHONY: faults
faults: ready ## `cgnet why` on real faults and healthy traffic, as root; the table and the score
	@test -n "$(IS_ROOT)" || echo "the faults are made in network namespaces and cgroups: they run with sudo"
	@$(AS_ROOT) $(BIN)/python tests/faults/run.py $(FAULTS)

.PHONY: faults-vm
faults-vm: ready ## the same in guests of two older kernels, as root, for hours: FAULTS='--family 4 --mode after'
	@tools/deps.sh --vm $(if $(IS_ROOT),,--check)
	@$(AS_ROOT) $(BIN)/python tests/vm/fault_guests.py $(FAULTS)

.PHONY: bench
bench: ready ## measure cgnet on this host, as root, and others that this system's packages have
	@$(AS_ROOT) tools/deps.sh --rivals || true
	@$(AS_ROOT) $(BIN)/python bench/run.py

# Packages and build, by whom they have to be.
.PHONY: ready
ready:
	@tools/deps.sh $(if $(IS_ROOT),,--check)
	@$(AS_OWNER) mkdir -p build
	@$(AS_OWNER) $(MAKE) --no-print-directory build

## Check

.PHONY: lint
lint: $(VENV)/.ready check-gen ## formatting, style, types, generated files
	$(BIN)/ruff format --check $(PY_FILES)
	$(BIN)/ruff check $(PY_FILES)
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(C_FILES)
	@tools/check_licences.sh
	@$(BIN)/python tools/check_words.py
	@tools/check_headers.sh $(BPF_CLANG)

.PHONY: lint-workflows
lint-workflows: $(VENV)/.ready ## permissions, pins and injections in .github/workflows
	$(BIN)/zizmor --offline --quiet .github/workflows

.PHONY: check-gen
check-gen: $(VENV)/.ready ## fail if src/cgnet/records/_layouts.py isn't what `make gen` writes
	@mkdir -p build
	@$(BIN)/python tools/gen_layouts.py --clang $(CLANG) bpf/abi build/_layouts.py
	@$(BIN)/ruff format --quiet build/_layouts.py
	@diff -u src/cgnet/records/_layouts.py build/_layouts.py || { echo "run 'make gen'" >&2; exit 1; }

.PHONY: format
format: $(VENV)/.ready ## format the sources
	$(BIN)/ruff format $(PY_FILES)
	$(BIN)/ruff check --fix-only --quiet $(PY_FILES)
	$(BIN)/clang-format -i $(C_FILES)

## Try

.PHONY: demo
demo: ## install what is missing, build, and show cgnet at work (root)
	@test -n "$(IS_ROOT)" || { echo "the demo loads BPF programs: run 'sudo make demo'" >&2; exit 1; }
	@tools/deps.sh
	@$(AS_OWNER) $(MAKE) --no-print-directory build
	@$(AS_ROOT) $(BIN)/python tools/demo.py

## Install

.PHONY: install
install: ready ## copy cgnet to PREFIX (/usr/local), with completions
	@$(AS_OWNER) $(MAKE) --no-print-directory plain-wheel completions man
	@tools/install.sh '$(DESTDIR)' '$(PREFIX)' '$(PYTHON)'

.PHONY: uninstall
uninstall: ## remove what `make install` copied to PREFIX
	@tools/install.sh --remove '$(DESTDIR)' '$(PREFIX)'

# The wheel of `make install`: without a libbpf of its own.
.PHONY: plain-wheel
plain-wheel: build
	@rm -rf build/plain-wheel
	@CGNET_SYSTEM_LIBBPF=1 $(BIN)/pip wheel --quiet --disable-pip-version-check --no-deps \
		--wheel-dir build/plain-wheel .

.PHONY: man
man: build ## the manual pages, in build/man
	@rm -rf build/man
	@$(BIN)/python tools/gen_man.py build/man

.PHONY: completions
completions: build ## shell completions for bash, zsh and fish, in build/completions
	@mkdir -p build/completions
	@for shell in bash zsh fish; do \
		_CGNET_COMPLETE=$${shell}_source $(BIN)/cgnet >build/completions/cgnet.$$shell || exit 1; \
	done

include packaging/packages.mk

.PHONY: clean
clean: ## remove what was built
	rm -rf build dist $(VENV) src/cgnet/_bpf/*.bpf.o .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find src tests tools bench -name __pycache__ -prune -exec rm -rf {} +
