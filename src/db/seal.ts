import type { AnchorLine } from '#contracts/seals.ts'
import { sql, type Kysely, type Transaction } from 'kysely'
import { json } from './json.ts'
import { digestOf, FIRST_PREVIOUS, hashOf, microsOf, SEAL_FORMAT, termsOf, type BlockHeader } from './seal-block.ts'
import { markOf, trustedHead, type SealMark } from './seal-head.ts'
import type { SealSigner } from './seal-key.ts'
import type { Database } from './schema.ts'

/** Rows of one block: its digest takes some tens of milliseconds. */
const BLOCK_ROWS = 10_000
/** A block that is not full waits until its first row is this old, so that a trickle does not make a block each second. */
const RIPE_MS = 2_000
/**
 * Advisory locks: one seals at a time, in all processes together (`append_seal` takes the same), and one writes anchors,
 * which may wait for a disk.
 */
const SEAL_LOCK = 7_235_001n
const ANCHOR_LOCK = 7_235_002n

/**
 * `ahead`: the journal names transactions that this cluster has not had yet (it came out of a dump), so what is written
 * now would come before what is sealed.
 */
export type SealOutcome =
  | { readonly kind: 'sealed'; readonly head: SealMark; readonly rows: number; readonly isFull: boolean }
  | { readonly kind: 'nothing' | 'elsewhere' | 'ahead' }

interface Candidate {
  readonly height: bigint
  readonly previous: Buffer | null
  readonly count: bigint
  readonly digest: Buffer | null
  readonly terms: Buffer
  readonly first: readonly [string, string] | null
  readonly last: readonly [string, string] | null
  readonly isRipe: boolean | null
  readonly isAhead: boolean
  readonly sealedAt: string
  readonly sealedAtMicros: string
}

/**
 * Seals the rows behind the last block, up to where nothing can appear any more: at most one block's worth, in one short
 * transaction. While another process seals, this one does nothing.
 *
 * @throws when the chain that stands there is not to be built on
 */
export async function sealOnce(
  db: Kysely<Database>,
  signer: SealSigner | undefined,
  mark?: SealMark,
): Promise<SealOutcome> {
  return db.transaction().execute(async (trx): Promise<SealOutcome> => {
    const lock = await sql<{ isOurs: boolean }>`
      select pg_try_advisory_xact_lock(${SEAL_LOCK}) as "isOurs"`.execute(trx)
    if (lock.rows[0]?.isOurs !== true) return { kind: 'elsewhere' }
    await trustedHead(trx, { mark, signer })
    const candidate = await readCandidate(trx)
    if (candidate.isAhead) return { kind: 'ahead' }
    const { first, last, digest } = candidate
    const isFull = candidate.count >= BigInt(BLOCK_ROWS)
    if (!first || !last || !digest || (!isFull && candidate.isRipe !== true)) return { kind: 'nothing' }
    const block: BlockHeader = {
      height: candidate.height,
      format: SEAL_FORMAT,
      firstXid: first[0],
      firstSeq: first[1],
      lastXid: last[0],
      lastSeq: last[1],
      count: Number(candidate.count),
      digest,
      terms: candidate.terms,
      previous: candidate.previous ?? FIRST_PREVIOUS,
      sealedAtMicros: candidate.sealedAtMicros,
    }
    const hash = hashOf(block)
    await append(trx, block, { hash, sealedAt: candidate.sealedAt, signer })
    const head = markOf({ height: block.height, hash, keyId: signer?.keyId ?? null })
    return { kind: 'sealed', head, rows: block.count, isFull }
  })
}

/** The next block, in one snapshot: the rows behind the head whose transactions, and all before them, are over. */
async function readCandidate(trx: Transaction<Database>): Promise<Candidate> {
  const { rows } = await sql<Candidate>`
    with head as (select * from seal order by height desc limit 1),
    at as (select clock_timestamp() as now),
    block as materialized (
      select t.* from transfer t
      where (t.xid, t.seq) > (coalesce((select last_xid from head), '0'::xid8), coalesce((select last_seq from head), 0))
        and t.xid < pg_snapshot_xmin(pg_current_snapshot())
      order by t.xid, t.seq limit ${BLOCK_ROWS}
    )
    select coalesce((select height from head), 0) + 1 as height, (select hash from head) as previous,
      (select count(*) from block) as count, (select ${digestOf(SEAL_FORMAT)} from block t) as digest,
      ${termsOf(SEAL_FORMAT, {
        after: sql`coalesce((select last_xid from head), '0'::xid8)`,
        upTo: sql`(select b.xid from block b order by b.xid desc limit 1)`,
      })} as terms,
      (select array[b.xid::text, b.seq::text] from block b order by b.xid, b.seq limit 1) as first,
      (select array[b.xid::text, b.seq::text] from block b order by b.xid desc, b.seq desc limit 1) as last,
      (select min(recorded_at) <= (select now from at) - ${RIPE_MS} * interval '1 millisecond' from block) as "isRipe",
      coalesce((select t.xid from transfer t order by t.xid desc limit 1) >= pg_snapshot_xmax(pg_current_snapshot()), false)
        as "isAhead",
      (select now::text from at) as "sealedAt", (select ${microsOf(sql`now`)} from at) as "sealedAtMicros"`.execute(trx)
  const [row] = rows
  if (!row) throw new Error('a query without a source gave no row')
  return row
}

async function append(
  trx: Transaction<Database>,
  block: BlockHeader,
  by: { readonly hash: Buffer; readonly sealedAt: string; readonly signer: SealSigner | undefined },
): Promise<void> {
  const { hash, sealedAt, signer } = by
  const row = {
    height: block.height,
    format: block.format,
    first_xid: block.firstXid,
    first_seq: block.firstSeq,
    last_xid: block.lastXid,
    last_seq: block.lastSeq,
    count: block.count,
    digest: bytes(block.digest),
    terms: bytes(block.terms),
    previous: bytes(block.previous),
    hash: bytes(hash),
    sealed_at: sealedAt,
    key_id: signer?.keyId ?? null,
    signature: signer ? bytes(signer.sign(hash)) : null,
  }
  await sql`select append_seal(${json(row)}::jsonb)`.execute(trx)
}

function bytes(buffer: Buffer): string {
  return `\\x${buffer.toString('hex')}`
}

/** Does something while no other process writes an anchor. The work must be short. */
export async function whileNobodyAnchors<Result>(
  db: Kysely<Database>,
  work: (trx: Transaction<Database>) => Promise<Result>,
): Promise<Result> {
  return db.transaction().execute(async (trx) => {
    await sql`select pg_advisory_xact_lock(${ANCHOR_LOCK})`.execute(trx)
    return work(trx)
  })
}

/** Heads from a height on, as they go into an anchor file. */
export async function headsFrom(
  db: Kysely<Database>,
  request: { readonly height: number; readonly limit: number },
): Promise<readonly AnchorLine[]> {
  const { rows } = await sql<AnchorLine>`
    select height::integer as height, encode(hash, 'hex') as hash, count,
      json_build_object('xid', last_xid::text, 'seq', last_seq::text) as last,
      to_char(sealed_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as "sealedAt", key_id as "keyId",
      encode(signature, 'hex') as signature
    from seal where height >= ${request.height} order by height limit ${request.limit}`.execute(db)
  return rows
}
