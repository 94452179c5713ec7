/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The load: client loops that connect, write, read and close over loopback, each with a server process
 * of its own. Usage: loop SECONDS LOOPS [keep]. Prints the connections made and the seconds it took; with
 * `keep` each loop keeps one connection, and what is counted are bytes that went forth and back.
 *
 * The destination goes round 127.0.0.0/8, so that ports in TIME_WAIT never run short. Each run has a
 * network namespace of its own: the host's table of sockets in TIME_WAIT would be full after some
 * seconds, and connections stall then for a minute.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ADDRESSES 250

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

static void enter_new_namespace(void)
{
	struct ifreq loopback = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
	int fd;

	if (unshare(CLONE_NEWNET))
		err(1, "unshare");
	fd = socket(AF_INET, SOCK_DGRAM, 0);
	if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &loopback))
		err(1, "lo");
	close(fd);
}

static void serve(int listener)
{
	char byte;

	for (;;) {
		int fd = accept(listener, NULL, NULL);

		if (fd < 0)
			err(1, "accept");
		while (read(fd, &byte, 1) == 1)
			if (write(fd, &byte, 1) != 1)
				break; /* the client is gone */
		close(fd);
	}
}

static pid_t start_server(struct sockaddr_in *address)
{
	socklen_t size = sizeof(*address);
	int listener = socket(AF_INET, SOCK_STREAM, 0);
	pid_t pid;

	*address = (struct sockaddr_in){.sin_family = AF_INET};
	if (bind(listener, (void *)address, size) || listen(listener, 4096) ||
	    getsockname(listener, (void *)address, &size))
		err(1, "listen");
	pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL); /* it ends with us, however we end */
		serve(listener);
	}
	close(listener);
	return pid;
}

static long keep_connected(struct sockaddr_in address, double seconds)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	double end = now() + seconds;
	long count = 0;
	char byte = 'x';

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (connect(fd, (void *)&address, sizeof(address)))
		err(1, "connect");
	for (; now() < end; count++)
		if (write(fd, &byte, 1) != 1 || read(fd, &byte, 1) != 1)
			err(1, "echo");
	return count;
}

static long run_client(struct sockaddr_in address, double seconds)
{
	double end = now() + seconds;
	long count = 0;
	char byte = 'x';

	while (now() < end) {
		int fd = socket(AF_INET, SOCK_STREAM, 0);

		address.sin_addr.s_addr = htonl(0x7f000001 + (count % ADDRESSES));
		if (connect(fd, (void *)&address, sizeof(address)))
			err(1, "connect");
		if (write(fd, &byte, 1) != 1 || read(fd, &byte, 1) != 1)
			err(1, "echo");
		close(fd);
		count++;
	}
	return count;
}

int main(int argc, char **argv)
{
	double seconds = argc >= 3 ? atof(argv[1]) : 0;
	int loops = argc >= 3 ? atoi(argv[2]) : 0;
	pid_t servers[64];
	long total = 0;
	long *counts;
	double start;

	if (seconds <= 0 || loops < 1 || loops > 64)
		errx(2, "usage: loop SECONDS LOOPS [keep]");
	enter_new_namespace();
	counts = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	start = now();
	for (int i = 0; i < loops; i++) {
		struct sockaddr_in address;

		servers[i] = start_server(&address);
		if (fork() == 0) {
			counts[i] = argc > 3 ? keep_connected(address, seconds)
					     : run_client(address, seconds);
			_exit(0);
		}
	}
	for (int i = 0; i < loops; i++)
		wait(NULL);
	for (int i = 0; i < loops; i++)
		total += counts[i];
	printf("%ld %.3f\n", total, now() - start);
	for (int i = 0; i < loops; i++)
		kill(servers[i], SIGKILL);
	return 0;
}
