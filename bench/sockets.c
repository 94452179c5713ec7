/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Open sockets, for the measurement of how fast they are found. Usage: sockets COUNT. Processes of a few
 * hundred listeners each; prints a line when all are open, and ends with its standard input.
 */
#include <arpa/inet.h>
#include <err.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define EACH 900 /* below the usual limit of open files */

static void listen_on(int number)
{
	struct sockaddr_in address = {
		.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(0x7f010001 + number / 10000),
	};
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	if (fd < 0 || bind(fd, (void *)&address, sizeof(address)) || listen(fd, 1))
		err(1, "listener %d", number);
}

int main(int argc, char **argv)
{
	int count = argc == 2 ? atoi(argv[1]) : 0;
	int ready[2];
	char byte;

	if (count < 1 || pipe(ready))
		errx(2, "usage: sockets COUNT");
	for (int first = 0; first < count; first += EACH) {
		if (fork())
			continue;
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (int i = first; i < first + EACH && i < count; i++)
			listen_on(i);
		if (write(ready[1], "x", 1) != 1)
			err(1, "ready");
		pause();
	}
	for (int first = 0; first < count; first += EACH)
		if (read(ready[0], &byte, 1) != 1)
			err(1, "a process failed");
	puts("open");
	fflush(stdout);
	while (read(STDIN_FILENO, &byte, 1) > 0)
		;
	return 0;
}
