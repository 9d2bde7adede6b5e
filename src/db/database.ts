import { Problem } from '#contracts/codes.ts'
import { Kysely, PostgresDialect } from 'kysely'
import pg from 'pg'
import type { Database } from './schema.ts'

/** The tenant every query is confined to. */
export interface Scope {
  readonly projectId: string
}

export interface ConnectOptions {
  readonly url: string
  readonly maxConnections: number
}

const INT8_OID = 20
/** A write transaction that takes longer than this hides committed events from their readers. */
const TRANSACTION_TIMEOUT_MS = 5_000
const CONNECT_TIMEOUT_MS = 5_000

/** BIGINT comes as bigint: money never passes through a float. */
const types = {
  getTypeParser(oid: number, format?: 'text' | 'binary') {
    if (oid === INT8_OID) return (text: string) => BigInt(text)
    return format === 'binary' ? pg.types.getTypeParser(oid, 'binary') : pg.types.getTypeParser(oid, 'text')
  },
}

export function connectDatabase(options: ConnectOptions): Kysely<Database> {
  const pool = new pg.Pool({
    connectionString: options.url,
    max: options.maxConnections,
    connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
    options: `-c transaction_timeout=${TRANSACTION_TIMEOUT_MS}`,
    types,
  })
  // A connection that dies while idle is not an event of anybody's: the next query opens another or fails by itself.
  pool.on('error', () => {})
  return new Kysely<Database>({ dialect: new PostgresDialect({ pool }) })
}

const UNAVAILABLE_CLASSES = new Set(['08', '57', '53'])
const UNAVAILABLE_CODES = new Set(['ECONNREFUSED', 'ECONNRESET', 'EPIPE', 'ETIMEDOUT', 'ENOTFOUND', '25P04'])

/** Whether an error means that the database cannot be reached now, as opposed to one it answered with. */
export function isStoreUnavailable(error: unknown): boolean {
  if (error instanceof Problem) return error.code === 'store_unavailable'
  if (!(error instanceof Error)) return false
  const code = 'code' in error && typeof error.code === 'string' ? error.code : ''
  return (
    UNAVAILABLE_CODES.has(code) ||
    (code.length === 5 && UNAVAILABLE_CLASSES.has(code.slice(0, 2))) ||
    /Connection terminated|timeout exceeded when trying to connect/.test(error.message)
  )
}
