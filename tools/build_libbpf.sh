#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Build libbpf.so.1 with libelf and zlib inside, so that it needs nothing but the C library.
#   build_libbpf.sh SOURCES OUT       the C compiler is $CC, with its arguments
# SOURCES has the archives that tools/sources.sh gets. libelf is built by a list of what it needs
# of its config.h: running its configure takes longer than all of this.
set -euo pipefail

sources=$(realpath "$1")
mkdir -p "$2"
out=$(realpath "$2")
read -ra cc <<<"${CC:-cc}"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

for archive in "$sources"/{libbpf,elfutils,zlib}_*.orig.tar.{gz,bz2,xz}; do
	test ! -e "$archive" || tar -C "$work" -xf "$archive"
done
cd "$work"
mv libbpf-* libbpf && mv elfutils-* elfutils && mv zlib-* zlib

# No path of this folder is kept in the library.
flags=(-O2 -fPIC -fvisibility=default -fno-strict-aliasing -ffile-prefix-map="$work"=. -w)
case ${cc[*]} in *zig*) flags+=(-fno-sanitize=undefined) ;; esac # zig's own default
# The map names two functions that libbpf.h only declares. GNU's linker lets that pass, LLVM's when told.
link=()
if "${cc[@]}" -shared -Wl,--undefined-version -x c /dev/null -o "$work/empty" 2>/dev/null; then
	link+=(-Wl,--undefined-version)
fi

cat >elfutils/config.h <<-END
	#define _GNU_SOURCE 1
	#define HAVE_DECL_MEMPCPY 1
	#define HAVE_DECL_MEMRCHR 1
	#define HAVE_DECL_POWEROF2 1
	#define HAVE_DECL_RAWMEMCHR 1
	#define HAVE_DECL_REALLOCARRAY 1
	#define HAVE_ERROR_H 1
	#define HAVE_ERR_H 1
	#define HAVE_FALLTHROUGH 1
	#define HAVE_MREMAP 1
	#define HAVE_STDATOMIC_H 1
	#define HAVE_VISIBILITY 1
	#define PACKAGE "elfutils"
	#define PACKAGE_NAME "elfutils"
	#define PACKAGE_VERSION "bundled"
	#define SIZEOF_LONG 8
	#include "eu-config.h"
END

# compile FOLDER FILE… -- FLAG…: objects beside the sources, two at a time.
compile() {
	local folder=$1 files=()
	shift
	while [[ $1 != -- ]]; do files+=("$1") && shift; done
	shift
	(cd "$folder" && printf '%s\0' "${files[@]}" |
		xargs -0 -n 24 -P 2 "${cc[@]}" "${flags[@]}" "$@" -c)
}

# libbpf reads /proc/config.gz by zlib's gz functions.
of_zlib=(adler32 compress crc32 deflate gzclose gzlib gzread gzwrite infback inffast inflate inftrees
	trees uncompr zutil)
compile zlib "${of_zlib[@]/%/.c}" -- -D_LARGEFILE64_SOURCE=1 -DHAVE_HIDDEN
mapfile -t of_libelf < <(cd elfutils/libelf && ls ./*.c)
compile elfutils/libelf "${of_libelf[@]}" -- -DHAVE_CONFIG_H -D_FILE_OFFSET_BITS=64 \
	-I.. -I. -I../lib -I../../zlib
mapfile -t of_libbpf < <(cd libbpf/src && ls ./*.c)
compile libbpf/src "${of_libbpf[@]}" -- -I../include -I../include/uapi -I../../elfutils/libelf \
	-I../../zlib -D_LARGEFILE64_SOURCE -D_FILE_OFFSET_BITS=64

# -z defs: what the C library hasn't must be inside, whatever the program has that loads it.
"${cc[@]}" "${flags[@]}" -shared -s -Wl,-soname,libbpf.so.1 -Wl,-z,relro -Wl,-z,now -Wl,-z,defs "${link[@]}" \
	-Wl,--version-script=libbpf/src/libbpf.map -o "$out/libbpf.so.1" \
	libbpf/src/*.o elfutils/libelf/*.o zlib/*.o
mkdir -p "$out/include/bpf"
install -m 644 libbpf/src/bpf_{helpers,helper_defs,core_read,endian,tracing}.h "$out/include/bpf"
install -m 644 libbpf/LICENSE.BSD-2-Clause "$out/libbpf.LICENSE"
install -m 644 elfutils/COPYING "$out/libelf.COPYING"
install -m 644 elfutils/COPYING-LGPLV3 "$out/libelf.COPYING-LGPLV3"
install -m 644 elfutils/COPYING-GPLV2 "$out/libelf.COPYING-GPLV2"
install -m 644 zlib/LICENSE "$out/zlib.LICENSE"
