import type { AnchorLine } from '#contracts/seals.ts'
import { sql, type Kysely } from 'kysely'
import { setTimeout } from 'node:timers/promises'
import { instantText } from './instant.ts'
import type { Frontier } from './journal-range.ts'
import { digestOf, FIRST_PREVIOUS, hashOf, termsOf } from './seal-block.ts'
import { readBlocks, type Block } from './seal-head.ts'
import type { SealPublicKey } from './seal-key.ts'
import { inLanes, type Finding } from './verify-check.ts'
import type { Database } from './schema.ts'

/** Rows whose digests one statement makes. */
const STATEMENT_ROWS = 20_000n
/** Anchored heads compared in one statement. */
const ANCHOR_PAGE = 5_000
/** While a worker lives, nothing may stay unsealed for longer than this. */
const MAX_LAG_MS = 60_000
/** A long transaction that has just ended lets many movements through at once: their sealer has this long to begin. */
const LOOK_AGAIN_MS = 3_000

/** Where an earlier verification has come to. */
export interface SealedUpTo {
  readonly height: bigint
  readonly hash: string
  /** The first block that is signed; zero when none is. */
  readonly signedFrom: bigint
}

const NO_BLOCK: SealedUpTo = Object.freeze({ height: 0n, hash: FIRST_PREVIOUS.toString('hex'), signedFrom: 0n })

export interface SealFindings {
  readonly seals: Finding
  readonly signatures: Finding
  readonly upTo: SealedUpTo
}

/** Follows the chain block by block: rows against digests, hashes against hashes, signatures against keys. */
export async function verifySeals(
  db: Kysely<Database>,
  options: {
    readonly frontier: Frontier
    readonly from?: SealedUpTo
    readonly publicKeys: readonly SealPublicKey[]
  },
): Promise<SealFindings> {
  const chain = new Chain(options.from ?? NO_BLOCK, options.publicKeys)
  if (options.from) await chain.expectStart(db, options.from)
  for (;;) {
    const page = await readBlocks(db, chain.upTo.height)
    if (page.length === 0) break
    await compareRows(db, page, chain)
    for (const block of page) chain.follow(block)
  }
  let tail = await readTail(db, options.frontier)
  if (tail.wrong !== null) {
    await setTimeout(LOOK_AGAIN_MS)
    tail = await readTail(db, options.frontier)
  }
  return { seals: chain.finding(tail), signatures: chain.signatures(), upTo: chain.upTo }
}

class Chain {
  upTo: SealedUpTo
  readonly #keys: readonly SealPublicKey[]
  #rows = 0
  #signed = 0
  #signedFrom: bigint
  #firstWrong: { readonly height: bigint; readonly wrong: string } | undefined
  #firstBadSignature: string | null = null

  constructor(from: SealedUpTo, keys: readonly SealPublicKey[]) {
    this.upTo = from
    this.#signedFrom = from.signedFrom
    this.#keys = keys
  }

  async expectStart(db: Kysely<Database>, from: SealedUpTo): Promise<void> {
    if (from.height === 0n) return
    const { rows } = await sql<{ hash: string }>`
      select encode(hash, 'hex') as hash from seal where height = ${from.height}`.execute(db)
    if (rows[0]?.hash !== from.hash) this.wrong(from.height, 'is not the one that was verified before')
  }

  wrong(height: bigint, wrong: string): void {
    if (!this.#firstWrong || height < this.#firstWrong.height) this.#firstWrong = { height, wrong }
  }

  follow(block: Block): void {
    const { height } = block
    if (height !== this.upTo.height + 1n) this.wrong(this.upTo.height + 1n, 'is missing')
    else if (block.previous.toString('hex') !== this.upTo.hash) this.wrong(height, 'names another block before it')
    if (!hashOf(block).equals(block.hash)) this.wrong(height, 'has a hash that is not its own')
    this.#checkSignature(block)
    this.#rows += 1
    this.upTo = { height, hash: block.hash.toString('hex'), signedFrom: this.#signedFrom }
  }

  #checkSignature({ height, hash, keyId, signature }: Block): void {
    if (signature !== null) {
      this.#signed += 1
      if (this.#signedFrom === 0n) this.#signedFrom = height
    }
    if (this.#keys.length === 0 || this.#firstBadSignature !== null) return
    if (signature === null) {
      if (this.#signedFrom > 0n) this.#firstBadSignature = `block ${height}: is not signed, and one below it is`
      return
    }
    const key = this.#keys.find((each) => each.keyId === keyId)
    if (!key) this.#firstBadSignature = `block ${height}: is signed with the key ${keyId}, which is not the one given`
    else if (!key.verifies(hash, signature))
      this.#firstBadSignature = `block ${height}: has a signature that is not its own`
  }

  finding(tail: Tail): Finding {
    const first = this.#firstWrong
    const sentence = first ? `block ${first.height}: ${first.wrong}` : tail.wrong
    return { rows: this.#rows, firstWrong: sentence, note: tail.note }
  }

  /**
   * Every block is signed from the first signed one on: one that is not was put there by somebody without the key. Those
   * below it are from before there was a key, as the sealer found them.
   */
  signatures(): Finding {
    const rows = this.#signed
    if (this.#keys.length === 0) {
      const note = rows === 0 ? 'no block is signed' : `${rows} signatures were not looked at: no public key was given`
      return { rows, firstWrong: null, note: this.#rows === 0 ? null : note }
    }
    if (this.#signedFrom === 0n && this.upTo.height > 0n) {
      return { rows, firstWrong: 'block 1: is not signed, and no later one is' }
    }
    const before = this.#signedFrom - 1n
    const note =
      before > 0n ? `the blocks up to ${before} were sealed without a key: signatures vouch from then on` : null
    return { rows, firstWrong: this.#firstBadSignature, note }
  }
}

interface Recomputed {
  readonly height: bigint
  readonly count: bigint
  readonly digest: Buffer | null
  readonly terms: Buffer
}

/** All rows between the block before and the last row of this one: a row too many is seen like a row too few. */
async function compareRows(db: Kysely<Database>, page: readonly Block[], chain: Chain): Promise<void> {
  const groups = groupsOf(page)
  await inLanes(
    () => Promise.resolve(groups.pop()),
    async (group) => {
      const found = await recompute(db, group)
      for (const block of group.blocks) {
        const row = found.get(block.height)
        if (!row) chain.wrong(block.height, `is in format ${block.format}, which this version does not know`)
        else if (row.count !== BigInt(block.count)) {
          chain.wrong(block.height, `has ${block.count} rows, the journal has ${row.count} there`)
        } else if (row.digest === null || !row.digest.equals(block.digest)) {
          chain.wrong(block.height, `says other rows than the journal: one from ${boundsOf(block)} was changed`)
        } else if (!row.terms.equals(block.terms)) {
          chain.wrong(
            block.height,
            `says other prices, quotes, lots, limits, wallets, envelopes or accounts: ${TERMS_CHANGED}`,
          )
        }
      }
    },
  )
}

const TERMS_CHANGED = 'a row that was made up to its last transaction was changed'

function boundsOf(block: Block): string {
  return `(${block.firstXid}, ${block.firstSeq}) to (${block.lastXid}, ${block.lastSeq})`
}

interface BlockGroup {
  readonly format: number
  readonly blocks: Block[]
  rows: bigint
}

function groupsOf(page: readonly Block[]): BlockGroup[] {
  const groups: BlockGroup[] = []
  for (const block of page) {
    const open = groups.at(-1)
    if (open && open.format === block.format && open.rows + BigInt(block.count) <= STATEMENT_ROWS) {
      open.blocks.push(block)
      open.rows += BigInt(block.count)
    } else groups.push({ format: block.format, blocks: [block], rows: BigInt(block.count) })
  }
  return groups
}

async function recompute(db: Kysely<Database>, group: BlockGroup): Promise<ReadonlyMap<bigint, Recomputed>> {
  const digest = digestOf(group.format)
  if (!digest) return new Map()
  const heights = group.blocks.map(({ height }) => height.toString())
  const { rows } = await sql<Recomputed>`
    select s.height, d.count, d.digest, ${termsOf(group.format, {
      after: sql`coalesce(p.last_xid, '0'::xid8)`,
      upTo: sql`s.last_xid`,
    })} as terms from seal s left join seal p on p.height = s.height - 1
    cross join lateral (
      select count(*) as count, ${digest} as digest from transfer t
      where (t.xid, t.seq) > (coalesce(p.last_xid, '0'::xid8), coalesce(p.last_seq, 0))
        and (t.xid, t.seq) <= (s.last_xid, s.last_seq)
    ) d
    where s.height = any(${heights}::bigint[])`.execute(db)
  return new Map(rows.map((row) => [row.height, row]))
}

interface Tail {
  readonly wrong: string | null
  readonly note: string | null
}

const MAX_TAIL_COUNT = 100_000

/** What is not sealed yet. That is no fault of the ledger, unless a worker that should seal has lived long enough. */
async function readTail(db: Kysely<Database>, frontier: Frontier): Promise<Tail> {
  const { rows } = await sql<{ count: bigint; oldest: string | null; isLate: boolean | null }>`
    with head as (select last_xid, last_seq, sealed_at from seal order by height desc limit 1),
    tail as (
      select t.recorded_at from transfer t
      where (t.xid, t.seq) > (coalesce((select last_xid from head), '0'::xid8), coalesce((select last_seq from head), 0))
        and t.xid <= ${frontier.upTo.xid.toString()}::text::xid8
      order by t.xid, t.seq limit ${MAX_TAIL_COUNT}
    ), late as (select clock_timestamp() - ${MAX_LAG_MS} * interval '1 millisecond' as before)
    select (select count(*) from tail) as count, (select ${instantText(sql`min(recorded_at)`)} from tail) as oldest,
      (select min(recorded_at) from tail) < late.before
        and coalesce((select sealed_at from head) < late.before, true)
        and exists (select from instance i where i.kind = 'worker' and i.started_at < late.before
          and i.lease_until > clock_timestamp()) as "isLate"
    from late`.execute(db)
  const [tail] = rows
  if (!tail?.oldest) return { wrong: null, note: null }
  const many = tail.count >= BigInt(MAX_TAIL_COUNT) ? `${MAX_TAIL_COUNT} or more` : String(tail.count)
  const them = tail.count === 1n ? '1 movement is' : `${many} movements are`
  const sentence = `${them} not sealed yet, the oldest of ${tail.oldest}`
  return tail.isLate === true
    ? { wrong: `${sentence}, while a worker lives`, note: null }
    : { wrong: null, note: sentence }
}

/** Whether each head that was kept outside still stands in the database as it was. */
export async function verifyAnchor(
  db: Kysely<Database>,
  anchor: { readonly lines: readonly AnchorLine[]; readonly publicKeys: readonly SealPublicKey[] },
): Promise<Finding> {
  const { lines } = anchor
  if (lines.length === 0) return nothingAnchored(db)
  const contradiction = contradictionIn(lines)
  if (contradiction !== null) return { rows: lines.length, firstWrong: contradiction }
  for (let at = 0; at < lines.length; at += ANCHOR_PAGE) {
    const page = lines.slice(at, at + ANCHOR_PAGE)
    const { rows } = await sql<{ height: bigint; hash: string }>`
      select height, encode(hash, 'hex') as hash from seal
      where height = any(${page.map(({ height }) => height)}::bigint[])`.execute(db)
    const stored = new Map(rows.map(({ height, hash }) => [Number(height), hash]))
    for (const line of page) {
      const wrong = wrongLine(line, stored.get(line.height), anchor.publicKeys)
      if (wrong !== null) return { rows: lines.length, firstWrong: `block ${line.height}: ${wrong}` }
    }
  }
  return { rows: lines.length, firstWrong: null }
}

/** Right only before the first block. */
async function nothingAnchored(db: Kysely<Database>): Promise<Finding> {
  const hasBlocks = (await readBlocks(db, 0n)).length > 0
  const firstWrong = hasBlocks ? 'block 1: is not in the anchor, and neither is any other' : null
  return { rows: 0, firstWrong, note: hasBlocks ? null : 'nothing is anchored' }
}

function contradictionIn(lines: readonly AnchorLine[]): string | null {
  const seen = new Map<number, string>()
  for (const { height, hash } of lines) {
    const known = seen.get(height)
    if (known !== undefined && known !== hash) return `block ${height}: is anchored twice, and not the same`
    seen.set(height, hash)
  }
  const heights = [...seen.keys()].toSorted((left, right) => left - right)
  const gap = heights.find((height, index) => index > 0 && height !== (heights[index - 1] ?? 0) + 1)
  return gap === undefined ? null : `block ${gap - 1}: is missing in the anchor, and the next one is there`
}

function wrongLine(line: AnchorLine, stored: string | undefined, keys: readonly SealPublicKey[]): string | null {
  if (stored === undefined) return 'is anchored, and the database does not have it'
  if (stored !== line.hash) return 'is another one than was anchored'
  const key = keys.find(({ keyId }) => keyId === line.keyId)
  if (!key || line.signature === null) return null
  const isSigned = key.verifies(Buffer.from(line.hash, 'hex'), Buffer.from(line.signature, 'hex'))
  return isSigned ? null : 'is anchored with a signature that is not its own'
}
