#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Fail, with a list, if a source file doesn't state its licence in its first three lines.
set -euo pipefail

cd "$(dirname "$0")/.."

source_files() {
	{
		git ls-files --cached --others --exclude-standard 2>/dev/null ||
			find . -type f -not -path './.*/*' -not -path './build/*' -printf '%P\n'
	} | grep -E '(\.(py|c|h|sh|toml|ya?ml)|(^|/)Makefile)$|^\.ci/run$' | sort
}

wrong=0
while read -r file; do
	test -e "$file" || continue # deleted, not yet committed
	case $file in
	bpf/* | *.bpf.c) licence='GPL-2.0-only OR BSD-2-Clause' ;;
	*) licence='BSD-2-Clause' ;;
	esac
	head -n 3 "$file" | grep -qE "SPDX-License-Identifier: $licence( \*/)?\$" && continue
	echo "$file: no 'SPDX-License-Identifier: $licence' in the first 3 lines" >&2
	wrong=1
done < <(source_files)
exit "$wrong"
