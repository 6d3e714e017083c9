/* The prompt. */

#ifndef SHELL_H
#define SHELL_H

#include "boot.h"

/* Reads commands from the console for ever. */
void shell(const struct boot_info *info);

#endif
