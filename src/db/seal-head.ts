import { sql, type Kysely } from 'kysely'
import { hashOf, microsOf, type BlockHeader } from './seal-block.ts'
import type { SealSigner } from './seal-key.ts'
import type { Database } from './schema.ts'

/** A block of the chain as it stands in the database. */
export interface Block extends BlockHeader {
  readonly hash: Buffer
  readonly keyId: string | null
  readonly signature: Buffer | null
}

/** The newest head that a process has seen and trusts, kept where the database cannot reach it. */
export interface SealMark {
  readonly height: number
  /** Hexadecimal. */
  readonly hash: string
  /** The key that it was signed with; null when it was not. */
  readonly keyId: string | null
}

const PAGE_BLOCKS = 1_000

/** The blocks above a height, at most a page of them. */
export async function readBlocks(db: Kysely<Database>, above: bigint): Promise<readonly Block[]> {
  const { rows } = await selectBlocks(db, sql`height > ${above} order by height limit ${PAGE_BLOCKS}`)
  return rows
}

function selectBlocks(db: Kysely<Database>, which: ReturnType<typeof sql>) {
  return sql<Block>`
    select height, format, first_xid::text as "firstXid", first_seq::text as "firstSeq", last_xid::text as "lastXid",
      last_seq::text as "lastSeq", count, digest, terms, previous, hash, ${microsOf(sql`sealed_at`)} as "sealedAtMicros",
      key_id as "keyId", signature
    from seal where ${which}`.execute(db)
}

/**
 * The head that the next block may be built on: the mark still stands, every block above it follows from the one before,
 * and the newest is signed with a key that is known. Undefined when there is no block yet. A sealer signs everything
 * below its block, so it looks before it signs.
 *
 * @throws when the chain is not the one that was sealed: who builds on it would vouch for whatever stands there now
 */
export async function trustedHead(
  db: Kysely<Database>,
  known: { readonly mark: SealMark | undefined; readonly signer: SealSigner | undefined },
): Promise<SealMark | undefined> {
  const { mark, signer } = known
  const head = mark ? await followFrom(db, mark) : await newestBlock(db)
  if (!head) return undefined
  const found = markOf(head)
  if (mark && found.hash === mark.hash) return mark
  if (head.signature === null) {
    const isSigned = mark?.keyId ?? (await firstSigned(db))
    if (isSigned !== null) throw doubt(`block ${head.height} is not signed, and one below it is`)
  } else if (!signer) {
    throw doubt('its blocks are signed, and this process has no key')
  } else if (!signer.knows(head)) {
    throw doubt(`block ${head.height} is not signed with a key that this process knows`)
  }
  return found
}

/** Follows the chain from the mark up to its newest block. */
async function followFrom(db: Kysely<Database>, mark: SealMark): Promise<Block> {
  const [marked] = (await selectBlocks(db, sql`height = ${mark.height}`)).rows
  if (marked?.hash.toString('hex') !== mark.hash) {
    const what = marked ? 'has otherwise' : 'does not have'
    throw doubt(`block ${mark.height}, which was sealed, is one that the database ${what}`)
  }
  let head = marked
  for (;;) {
    const page = await readBlocks(db, head.height)
    if (page.length === 0) return head
    for (const block of page) {
      if (block.height !== head.height + 1n || !block.previous.equals(head.hash) || !hashOf(block).equals(block.hash)) {
        throw doubt(`block ${block.height} does not follow from the one before it`)
      }
      head = block
    }
  }
}

async function newestBlock(db: Kysely<Database>): Promise<Block | undefined> {
  const { rows } = await selectBlocks(db, sql`true order by height desc limit 1`)
  return rows[0]
}

async function firstSigned(db: Kysely<Database>): Promise<bigint | null> {
  const { rows } = await sql<{ height: bigint }>`
    select height from seal where signature is not null order by height limit 1`.execute(db)
  return rows[0]?.height ?? null
}

export function markOf(block: Pick<Block, 'height' | 'hash' | 'keyId'>): SealMark {
  return { height: Number(block.height), hash: block.hash.toString('hex'), keyId: block.keyId }
}

function doubt(reason: string): Error {
  return new Error(`Nothing is sealed, because the chain of blocks is not the one that was: ${reason}.`)
}
