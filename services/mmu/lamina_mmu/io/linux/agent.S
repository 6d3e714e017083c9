# The agent: the program of a process that exists to be an address space (docs/adr/0030-spaces-are-processes.md).
#
# It has one page of code (0x10000) and five of data (0x11000), and nothing else: the service unmaps its stack and the
# vDSO. It takes one command at a time from descriptor 0, a socket that keeps messages apart, and answers each:
#
#     command   8 words   number · operation · six arguments
#     reply     5 words   number · result · signal · code · address
#
# Operation 0 to 0xfff is a system call. A descriptor that comes with the command becomes its fifth argument (that of
# mmap, 4096 is no address) and is closed afterwards; after a fork the child speaks over it. Others are accesses:
# 0x1000 reads a byte, 0x1001 writes one that stays as it is, 0x1002 jumps. What an access raises becomes the reply.
# When the service is gone the socket ends, and so does the agent.
#
# as agent.S -o agent.o && objcopy -O binary -j .text agent.o: these bytes are in io/linux/program.py, and a test compares them.

        .set DATA, 0x11000
        .set NUMBER, DATA               # the command
        .set OPERATION, DATA + 8
        .set ARGUMENTS, DATA + 16
        .set REPLY, DATA + 64
        .set RESULT, REPLY + 8
        .set SIGNAL, REPLY + 16
        .set CODE, REPLY + 24
        .set ADDRESS, REPLY + 32
        .set MESSAGE, DATA + 128        # struct msghdr, written by the service
        .set CONTROL, DATA + 256        # its control buffer: struct cmsghdr, the descriptor
        .set CONTROL_LENGTH, MESSAGE + 40
        .set STACK, 0x16000

        .text
start:                                  # 0x100b0: after the ELF header and two program headers
        mov     $STACK, %esp
        movq    $0, CONTROL
        movl    $DATA, MESSAGE + 64     # iovec: base, length
        movl    $64, MESSAGE + 72
        movl    $MESSAGE + 64, MESSAGE + 16
        movl    $1, MESSAGE + 24
        movl    $CONTROL, MESSAGE + 32
next:
        mov     $STACK, %esp
        movq    $24, CONTROL_LENGTH
        movl    $0, MESSAGE + 48
        xor     %edi, %edi
        mov     $MESSAGE, %esi
        mov     $0x40000000, %edx       # MSG_CMSG_CLOEXEC
        mov     $47, %eax               # recvmsg
        syscall
        cmp     $-4, %rax               # EINTR
        je      next
        test    %rax, %rax
        jle     leave
        mov     NUMBER, %rax
        mov     %rax, REPLY
        movq    $0, SIGNAL
        movq    $0, CODE
        movq    $0, ADDRESS
        mov     $-1, %r12               # the descriptor that came
        cmpq    $0, CONTROL_LENGTH
        je      decode
        movslq  CONTROL + 16, %r12
decode:
        mov     OPERATION, %rax
        mov     ARGUMENTS, %rdi
        cmp     $0x1000, %rax
        je      read_byte
        cmp     $0x1001, %rax
        je      write_byte
        cmp     $0x1002, %rax
        je      execute
        mov     ARGUMENTS + 8, %rsi
        mov     ARGUMENTS + 16, %rdx
        mov     ARGUMENTS + 24, %r10
        mov     ARGUMENTS + 32, %r8
        mov     ARGUMENTS + 40, %r9
        test    %r12, %r12
        js      call
        mov     %r12, %r8
call:
        mov     %rax, %r13
        syscall
        mov     %rax, %r14
        test    %r12, %r12
        js      done
        cmp     $56, %r13               # clone: the child goes over to its own connection
        jne     close
        test    %rax, %rax
        jne     close
        mov     %r12, %rdi
        xor     %esi, %esi
        mov     $33, %eax               # dup2
        syscall
close:
        mov     %r12, %rdi
        mov     $3, %eax
        syscall
done:
        mov     %r14, %rax
answer:
        mov     %rax, RESULT
        xor     %edi, %edi
        mov     $REPLY, %esi
        mov     $40, %edx
        mov     $0x4000, %r10d          # MSG_NOSIGNAL
        xor     %r8d, %r8d
        xor     %r9d, %r9d
        mov     $44, %eax               # sendto
        syscall
        jmp     next
read_byte:
        movb    (%rdi), %al
        xor     %eax, %eax
        jmp     answer
write_byte:
        lock orb $0, (%rdi)
        xor     %eax, %eax
        jmp     answer
execute:
        jmp     *%rdi
caught:                                 # signal in edi, siginfo in rsi; the stack below is left as it is
        movslq  %edi, %rdi
        mov     %rdi, SIGNAL
        movslq  8(%rsi), %rax
        mov     %rax, CODE
        mov     16(%rsi), %rax
        mov     %rax, ADDRESS
        mov     $STACK, %esp
        mov     $-14, %rax              # EFAULT
        jmp     answer
leave:
        xor     %edi, %edi
        mov     $231, %eax              # exit_group
        syscall
