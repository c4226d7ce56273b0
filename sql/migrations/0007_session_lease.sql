-- Who obtains the session with the vendor holds a lock of its database session, which ends with its holder.

ALTER TABLE vendor_session DROP COLUMN renewing_until;
