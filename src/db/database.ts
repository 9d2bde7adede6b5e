import { Problem } from '#contracts/codes.ts'
import { invariant } from '#domain/invariant.ts'
import { Kysely, PostgresDialect, type PostgresPool } from 'kysely'
import pg from 'pg'
import { openPool } from './pool.ts'
import { preparing } from './preparing-pool.ts'
import type { Database } from './schema.ts'

/** The tenant every query is confined to. */
export interface Scope {
  readonly projectId: string
}

export interface ConnectOptions {
  readonly url: string
  readonly maxConnections: number
  /** For reads over everything, such as `verify`: no limit of time, and no write may hide behind it. */
  readonly patience?: 'unlimited'
}

const INT8_OID = 20
/** A write transaction that takes longer than this hides committed events from their readers. */
const TRANSACTION_TIMEOUT_MS = 5_000
/** For many small look-ups in big tables: through indexes, without the preparations that pay off for long statements. */
const READING =
  '-c default_transaction_read_only=on -c enable_seqscan=off -c random_page_cost=1.1 -c jit=off -c max_parallel_workers_per_gather=0 -c work_mem=64MB'
const CONNECT_TIMEOUT_MS = 5_000
/** Statements that read whole tables keep their connection from the others meanwhile. */
const PATIENT_TIMEOUT_MS = 600_000
/** A peer that vanished without a word answers nothing for ever: later than its own limits, a statement is given up. */
const QUERY_TIMEOUT_MS = 8_000
const KEEP_ALIVE_DELAY_MS = 5_000

/** BIGINT comes as bigint: money never passes through a float. */
const types = {
  getTypeParser(oid: number, format?: 'text' | 'binary') {
    if (oid === INT8_OID) return (text: string) => BigInt(text)
    return format === 'binary' ? pg.types.getTypeParser(oid, 'binary') : pg.types.getTypeParser(oid, 'text')
  },
}

export function connectDatabase(options: ConnectOptions): Kysely<Database> {
  const pool = openPool({
    connectionString: options.url,
    max: options.maxConnections,
    connectionTimeoutMillis: options.patience === 'unlimited' ? PATIENT_TIMEOUT_MS : CONNECT_TIMEOUT_MS,
    keepAlive: true,
    keepAliveInitialDelayMillis: KEEP_ALIVE_DELAY_MS,
    ...(options.patience === 'unlimited'
      ? { options: READING }
      : { options: `-c transaction_timeout=${TRANSACTION_TIMEOUT_MS}`, query_timeout: QUERY_TIMEOUT_MS }),
    types,
  })
  const prepared = preparing(pool)
  const db = new Kysely<Database>({ dialect: new PostgresDialect({ pool: prepared }) })
  pools.set(db, prepared)
  return db
}

const pools = new WeakMap<Kysely<Database>, PostgresPool>()

/** The pool of what `connectDatabase` answered: another handle may share it. */
export function poolOf(db: Kysely<Database>): PostgresPool {
  const pool = pools.get(db)
  invariant(pool, 'a transaction has no pool')
  return pool
}

const UNAVAILABLE_CLASSES = new Set(['08', '57', '53'])
/** Of the network, and of Postgres: a transaction over its time, a deadlock, a serialisation failure, a lock not had. */
const UNAVAILABLE_CODES = new Set(
  'ECONNREFUSED ECONNRESET ECONNABORTED EPIPE ETIMEDOUT ENOTFOUND EAI_AGAIN EHOSTUNREACH ENETUNREACH 25P04 40P01 40001 55P03'.split(
    ' ',
  ),
)
const UNAVAILABLE_MESSAGE =
  /Connection terminated|not queryable|Query read timeout|timeout exceeded when trying to connect/

/** Whether an error means that the same statement may succeed later, as opposed to one that will always fail. */
export function isStoreUnavailable(error: unknown): boolean {
  if (error instanceof Problem) return error.code === 'store_unavailable' || error.code === 'clock_backwards'
  if (!(error instanceof Error)) return false
  const code = 'code' in error && typeof error.code === 'string' ? error.code : ''
  return (
    UNAVAILABLE_CODES.has(code) ||
    (code.length === 5 && UNAVAILABLE_CLASSES.has(code.slice(0, 2))) ||
    UNAVAILABLE_MESSAGE.test(error.message)
  )
}
