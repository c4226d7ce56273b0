-- An hour in which nobody traded a share has no bar, and is no fault.

ALTER TABLE symbol_state ADD COLUMN quiet_hours timestamptz[] NOT NULL DEFAULT '{}';
COMMENT ON COLUMN symbol_state.quiet_hours IS
    'starts of the last weeks'' bars that the vendor serves as rows without any price: nobody traded';
