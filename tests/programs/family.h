/* Shared by `family` and its libraries: one connection within a process, both ends of it. */
#ifndef FAMILY_H
#define FAMILY_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define must(condition) ((condition) ? (void)0 : fail(#condition))

void fail(const char *what) __attribute__((noreturn));

/* What a library does; each is implemented once for each of them. */
struct library {
	/* With a handshake, where the library asks for one by name. */
	void *(*open)(int fd, int is_server, const char *cert, const char *key);
	/* Some of it, or all. */
	ssize_t (*write)(void *tls, const void *buf, size_t len);
	/* At most `len`. */
	ssize_t (*read)(void *tls, void *buf, size_t len);
	/* Writes all of it in a way that only this library has, or NULL. */
	void (*write_oddly)(void *tls, int fd, const void *buf, size_t len);
	void (*close)(void *tls);
	/* "1.3", or NULL where a capture cannot know it. */
	const char *(*version)(void *tls);
};
extern const struct library library;

#endif
