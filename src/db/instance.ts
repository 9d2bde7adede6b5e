import { sql, type Kysely } from 'kysely'
import type { Database } from './schema.ts'

/** How long a process may be silent before its attempts may be taken over. */
export const LEASE_MS = 10_000
/** A lease is renewed this often. */
export const RENEW_MS = 1_000

/** Registers a process with a fresh lease on the database's clock. */
export async function registerInstance(
  db: Kysely<Database>,
  instance: {
    readonly id: string
    readonly kind: string
    readonly host: string
    readonly pid: number
    /** The id of the key that it encrypts secrets with. */
    readonly encryptsWith?: string | undefined
  },
): Promise<void> {
  await sql`
    insert into instance (id, kind, host, pid, encrypts_with, lease_until)
    values (${instance.id}, ${instance.kind}, ${instance.host}, ${instance.pid}, ${instance.encryptsWith ?? null},
      clock_timestamp() + ${LEASE_MS} * interval '1 millisecond')`.execute(db)
}

/** Prolongs the lease, and says which key is in use by now. A process that slept past its lease gets a new one: what was taken over meanwhile stays taken. */
export async function renewLease(
  db: Kysely<Database>,
  { id, encryptsWith }: { readonly id: string; readonly encryptsWith: string | undefined },
): Promise<void> {
  await sql`
    update instance set lease_until = clock_timestamp() + ${LEASE_MS} * interval '1 millisecond',
      encrypts_with = ${encryptsWith ?? null}
    where id = ${id}`.execute(db)
}

/** Gives the lease up at once, so that nobody has to wait for it. */
export async function endLease(db: Kysely<Database>, id: string): Promise<void> {
  await sql`update instance set lease_until = clock_timestamp() where id = ${id}`.execute(db)
}
