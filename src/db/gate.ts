import pg from 'pg'
import { sql, type Kysely } from 'kysely'
import type { Database } from './schema.ts'

const CHANNEL = 'purser_gate'

/** Of the given envelopes, those in which no request may go on. For the platform's own watch over requests in flight. */
export async function closingEnvelopes(db: Kysely<Database>, ids: readonly string[]): Promise<readonly string[]> {
  if (ids.length === 0) return []
  const rows = await db
    .selectFrom('envelope')
    .select('id')
    .where('id', '=', sql<string>`any(${[...ids]}::uuid[])`)
    .where('gate', 'in', ['closing', 'closed'])
    .execute()
  return rows.map((row) => row.id)
}

/** Calls back with an envelope's id whenever its gate changes, and once when the connection ends. */
export async function listenForGates(
  url: string,
  listener: { readonly onChange: (envelopeId: string) => void; readonly onEnd: () => void },
): Promise<{ stop(): Promise<void> }> {
  const client = new pg.Client({ connectionString: url })
  client.on('error', () => {})
  client.on('end', listener.onEnd)
  client.on('notification', (message) => {
    if (message.payload !== undefined) listener.onChange(message.payload)
  })
  await client.connect()
  await client.query(`listen ${CHANNEL}`)
  return { stop: () => client.end() }
}
