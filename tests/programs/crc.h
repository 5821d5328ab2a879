/* CRC-32 as in zlib, so that the Python and node programs need no code of their own. */
#ifndef CRC_H
#define CRC_H

#include <stddef.h>
#include <stdint.h>

static uint32_t crc_table[256];

static inline void crc_init(void)
{
	for (uint32_t i = 0; i < 256; i++) {
		uint32_t c = i;
		for (int bit = 0; bit < 8; bit++)
			c = c & 1 ? 0xedb88320 ^ (c >> 1) : c >> 1;
		crc_table[i] = c;
	}
}

static inline uint32_t crc32(uint32_t crc, const unsigned char *bytes, size_t len)
{
	crc = ~crc;
	while (len--)
		crc = crc_table[(crc ^ *bytes++) & 0xff] ^ (crc >> 8);
	return ~crc;
}

#endif
