"""Operations on a range of a space, a module for each: mmap, mremap, mlock, madvise, msync, brk."""
