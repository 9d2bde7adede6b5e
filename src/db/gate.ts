import pg from 'pg'
import { sql, type Kysely } from 'kysely'
import type { Database } from './schema.ts'

const CHANNEL = 'purser_gate'
const CONNECT_TIMEOUT_MS = 5_000

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

export interface GateListener {
  isAlive(): boolean
  stop(): Promise<void>
}

/** Calls back with an envelope's id whenever its gate changes, while its connection lives. */
export async function listenForGates(url: string, onChange: (envelopeId: string) => void): Promise<GateListener> {
  const client = new pg.Client({
    connectionString: url,
    connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
    keepAlive: true,
  })
  let alive = true
  client.on('error', () => {})
  client.on('end', () => {
    alive = false
  })
  client.on('notification', (message) => {
    if (message.payload !== undefined) onChange(message.payload)
  })
  try {
    await client.connect()
    await client.query(`listen ${CHANNEL}`)
  } catch (error) {
    await client.end().catch(() => {})
    throw error
  }
  return { isAlive: () => alive, stop: () => client.end().catch(() => {}) }
}
