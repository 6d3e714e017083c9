"""Taking a page away from its users: TLB shootdown, revocation from holders, migration to another frame."""
