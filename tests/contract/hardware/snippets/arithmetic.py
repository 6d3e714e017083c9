"""Integer instructions: results and flags."""

from __future__ import annotations

from tests.contract.hardware.snippets.snippet import AF, CF, DF, OF, PF, SF, STATUS, ZF, Snippet

ALL = (1 << 64) - 1

SNIPPETS = (
    Snippet(
        "add_with_carry",
        "ADC carries from one word of a long addition into the next.",
        """
        mov rax, -1
        mov rdx, 7
        mov rbx, 1
        add rax, rbx
        adc rdx, 0
        hlt
        """,
        registers={"rax": 0, "rdx": 8},
        clear=CF | ZF | OF,
    ),
    Snippet(
        "subtract_with_borrow",
        "SBB takes the borrow of the word below.",
        """
        xor eax, eax
        mov edx, 5
        sub rax, 1
        sbb rdx, 5
        hlt
        """,
        registers={"rax": ALL, "rdx": ALL},
        set=CF | SF | AF | PF,
        clear=ZF | OF,
    ),
    Snippet(
        "signed_overflow",
        "Adding one to the largest signed byte overflows: OF and SF, no carry.",
        """
        mov eax, 0x117f
        add al, 1
        hlt
        """,
        registers={"rax": 0x1180},
        set=OF | SF | AF,
        clear=CF | ZF | PF,
    ),
    Snippet(
        "compare_subtracts",
        "CMP sets the flags of a subtraction and changes nothing else.",
        """
        mov rax, 3
        mov rbx, 4
        cmp rax, rbx
        hlt
        """,
        registers={"rax": 3, "rbx": 4},
        set=CF | SF | AF | PF,
        clear=ZF | OF,
    ),
    Snippet(
        "inc_keeps_carry",
        "INC and DEC leave CF as it was.",
        """
        stc
        mov ecx, 0xffffffff
        inc ecx
        mov edx, 1
        dec dl
        hlt
        """,
        registers={"rcx": 0, "rdx": 0},
        set=CF | ZF | PF,
    ),
    Snippet(
        "multiply_wide",
        "MUL leaves 128 bits; CF and OF say that the upper half counts.",
        """
        mov rax, -1
        mov rbx, -1
        mul rbx
        hlt
        """,
        registers={"rax": 1, "rdx": ALL - 1},
        set=CF | OF,
        undefined=SF | ZF | AF | PF,
    ),
    Snippet(
        "multiply_signed",
        "IMUL of three operands keeps the low half and says whether it was cut.",
        """
        mov rbx, -3
        imul rcx, rbx, 1000
        mov edx, 0x10000
        imul edx, edx
        hlt
        """,
        registers={"rcx": ALL + 1 - 3000, "rdx": 0},
        set=CF | OF,
        undefined=SF | ZF | AF | PF,
    ),
    Snippet(
        "divide_128",
        "DIV divides RDX:RAX: quotient to RAX, remainder to RDX.",
        """
        mov edx, 1
        mov eax, 6
        mov ebx, 16
        div rbx
        hlt
        """,
        registers={"rax": 0x1000_0000_0000_0000, "rdx": 6},
        undefined=STATUS,
    ),
    Snippet(
        "divide_negative",
        "IDIV truncates towards zero; the remainder has the dividend's sign.",
        """
        mov rax, -7
        cqo
        mov ebx, 2
        idiv rbx
        hlt
        """,
        registers={"rax": ALL - 2, "rdx": ALL},
        undefined=STATUS,
    ),
    Snippet(
        "shifts",
        "SAR keeps the sign, SHR does not, and CF is the last bit out; counts are taken modulo 64.",
        """
        mov rax, -5
        mov rbx, rax
        sar rax, 1
        mov cl, 65
        shr rbx, cl
        hlt
        """,
        registers={"rax": ALL - 2, "rbx": (1 << 63) - 3},
        set=CF,
        undefined=AF | OF,
    ),
    Snippet(
        "shift_by_nothing",
        "A shift by 0 changes no flag.",
        """
        mov eax, 0x80
        add al, 0x80
        mov cl, 0
        shl ebx, cl
        hlt
        """,
        registers={"rax": 0},
        set=CF | ZF | OF | PF,
        clear=SF,
    ),
    Snippet(
        "double_shift",
        "SHLD and SHRD shift bits of a second register in.",
        """
        mov rax, 0x8000000000000001
        mov rbx, 0xf000000000000000
        mov rcx, rax
        shld rax, rbx, 4
        shrd rcx, rbx, 60
        hlt
        """,
        registers={"rax": 0x1F, "rcx": 8},
        undefined=AF | OF,
    ),
    Snippet(
        "rotate_through_carry",
        "RCL takes CF into bit 0 and gives the top bit to CF.",
        """
        stc
        mov rax, 0x8000000000000000
        rcl rax, 1
        mov ebx, 0x81
        rcr bl, 1
        hlt
        """,
        registers={"rax": 1, "rbx": 0xC0},
        set=CF,
        undefined=AF,
    ),
    Snippet(
        "rotates",
        "ROL and ROR turn the bits within the operand's size.",
        """
        mov eax, 0x80000001
        rol eax, 4
        mov ebx, 0x1234
        ror bx, 4
        hlt
        """,
        registers={"rax": 0x18, "rbx": 0x4123},
        undefined=OF,
    ),
    Snippet(
        "bits",
        "BSF and BSR find bits; BTS, BTR and BTC change one and give what it was to CF.",
        """
        mov eax, 0x00f0
        bsf rbx, rax
        bsr rcx, rax
        bts eax, 0
        btr eax, 4
        btc eax, 31
        hlt
        """,
        registers={"rbx": 4, "rcx": 7, "rax": 0x8000_00E1},
        clear=CF,
        undefined=OF | SF | AF | PF | ZF,
    ),
    Snippet(
        "bit_string",
        "BT with a register reaches bits beyond its operand in memory.",
        """
        mov rbx, KDATA
        mov eax, 70
        bts qword ptr [rbx], rax
        mov rdx, [rbx+8]
        hlt
        """,
        registers={"rdx": 1 << 6},
        clear=CF,
        undefined=OF | SF | AF | PF,
    ),
    Snippet(
        "narrow_writes",
        "A 32-bit result clears the upper half of its register, 16 and 8 bits leave it.",
        """
        mov rax, -1
        mov rbx, -1
        mov rcx, -1
        mov eax, 1
        mov bx, 2
        mov ch, 3
        hlt
        """,
        registers={"rax": 1, "rbx": 0xFFFF_FFFF_FFFF_0002, "rcx": 0xFFFF_FFFF_FFFF_03FF},
    ),
    Snippet(
        "sign_extension",
        "MOVSX, MOVSXD, MOVZX, CDQE and CQO widen as they say.",
        """
        mov ecx, 0x80
        movsx rax, cl
        movzx rbx, cl
        mov edx, 0x80000000
        movsxd rsi, edx
        mov eax, 0x80000000
        cdqe
        mov rdi, rax
        cqo
        hlt
        """,
        registers={"rbx": 0x80, "rsi": ALL - 0x7FFF_FFFF, "rdi": ALL - 0x7FFF_FFFF, "rdx": ALL},
    ),
    Snippet(
        "compare_exchange",
        "CMPXCHG stores when the accumulator matches, else it loads; ZF says which.",
        """
        mov rbx, KDATA
        mov qword ptr [rbx], 5
        mov eax, 5
        mov ecx, 9
        lock cmpxchg [rbx], rcx
        setz dl
        mov eax, 1
        lock cmpxchg [rbx], rdi
        hlt
        """,
        registers={"rdx": 1, "rax": 9},
        clear=ZF,
    ),
    Snippet(
        "compare_exchange_16",
        "CMPXCHG16B exchanges sixteen bytes at once.",
        """
        mov rsi, KDATA
        mov qword ptr [rsi], 1
        mov qword ptr [rsi+8], 2
        mov eax, 1
        mov edx, 2
        mov ebx, 3
        mov ecx, 4
        lock cmpxchg16b [rsi]
        mov r8, [rsi]
        mov r9, [rsi+8]
        hlt
        """,
        registers={"r8": 3, "r9": 4},
        set=ZF,
    ),
    Snippet(
        "exchange_and_add",
        "XADD leaves the old value in the register and the sum in memory; XCHG swaps.",
        """
        mov rbx, KDATA
        mov qword ptr [rbx], 40
        mov eax, 2
        lock xadd [rbx], rax
        mov ecx, 7
        xchg [rbx], rcx
        hlt
        """,
        registers={"rax": 40, "rcx": 42},
    ),
    Snippet(
        "byte_orders",
        "BSWAP turns bytes; POPCNT counts bits; CRC32 has the Castagnoli polynomial.",
        """
        mov rax, 0x0102030405060708
        mov rbx, rax
        bswap rax
        popcnt rcx, rbx
        xor edx, edx
        crc32 rdx, rbx
        hlt
        """,
        registers={"rax": 0x0807_0605_0403_0201, "rcx": 13},
    ),
    Snippet(
        "conditions",
        "SETcc and CMOVcc follow signed and unsigned conditions; CMOV of 32 bits clears the upper half either way.",
        """
        mov rax, -1
        mov rbx, 1
        mov rdi, -1
        mov rsi, -1
        cmp rax, rbx
        seta cl
        setl ch
        cmovl rdx, rbx
        cmovb edi, ebx
        cmovl esi, ebx
        hlt
        """,
        registers={"rcx": 0x101, "rdx": 1, "rdi": 0xFFFF_FFFF, "rsi": 1},
        start={"rcx": 0},
    ),
    Snippet(
        "flags_by_ah",
        "SAHF loads SF, ZF, AF, PF and CF from AH, LAHF stores them with bit 1 set.",
        """
        mov ah, 0xff
        sahf
        xor_free: lahf
        std
        hlt
        """,
        registers={"rax": 0xD700},
        set=CF | PF | AF | ZF | SF | DF,
        start={"rax": 0},
    ),
    Snippet(
        "effective_addresses",
        "LEA adds base, scaled index and displacement without touching memory; 32-bit addresses are cut.",
        """
        mov rbx, 0x100000000
        mov rcx, 3
        lea rax, [rbx+rcx*8+0x10]
        lea edx, [ebx+ecx*4-1]
        hlt
        """,
        registers={"rax": 0x1_0000_0028, "rdx": 11},
    ),
    Snippet(
        "logic",
        "AND, OR, XOR, TEST and NOT: CF and OF are clear, PF looks at one byte.",
        """
        mov rax, 0xf0f0
        and rax, 0xff00
        or rax, 0x0103
        xor rax, -1
        not rax
        test rax, rax
        hlt
        """,
        registers={"rax": 0xF103},
        set=PF,
        clear=CF | OF | ZF | SF,
        undefined=AF,
    ),
)
