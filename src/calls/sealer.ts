import type { Database } from '#db/schema.ts'
import { trustedHead } from '#db/seal-head.ts'
import { sealSigner, type SealSigner } from '#db/seal-key.ts'
import { sealOnce } from '#db/seal.ts'
import type { Kysely } from 'kysely'
import { readFile } from 'node:fs/promises'
import { anchorHeads } from './seal-anchor.ts'
import { markKeeper, type MarkKeeper } from './seal-mark.ts'

/** With the time that a block ripens (2 s) everything is sealed within 5 s. */
const TURN_MS = 1_000
/** Full blocks of one turn, so that a backlog is worked off and one process does not hold the others off for long. */
const MAX_BLOCKS = 20

const AHEAD =
  'Nothing is sealed: the journal names transactions that this cluster has not had yet, because it came out of a dump. Stop the cluster and advance them (pg_resetwal --next-transaction-id).'

export interface SealSettings {
  readonly keyFile: string | undefined
  readonly anchorFile: string | undefined
}

export interface Sealer {
  /** Ends after the turn that is on. */
  stop(): Promise<void>
}

/**
 * Seals what is written, in every process that runs: one of them does it at a time. A turn that fails is made up for by
 * the next; what keeps failing is said once.
 *
 * @throws when the key file is not there, or holds no Ed25519 key
 */
export async function startSealer(options: {
  readonly db: Kysely<Database>
  readonly settings: SealSettings
  readonly complain: (sentence: string) => void
}): Promise<Sealer> {
  const { db, settings } = options
  const signer = await readSigner(settings.keyFile)
  const marks = markKeeper(settings)
  let said: string | undefined
  let turn: Promise<void> | undefined
  const take = async (): Promise<void> => {
    const complaint = await sealAll(db, { signer, marks, anchorFile: settings.anchorFile }).catch((error: unknown) =>
      error instanceof Error ? error.message : String(error),
    )
    if (complaint !== undefined && complaint !== said) options.complain(complaint)
    said = complaint
    turn = undefined
  }
  const timer = setInterval(() => {
    turn ??= take()
  }, TURN_MS)
  timer.unref()
  return {
    async stop() {
      clearInterval(timer)
      await turn
    },
  }
}

/** Answers what stands in the way, if anything does. */
async function sealAll(
  db: Kysely<Database>,
  by: {
    readonly signer: SealSigner | undefined
    readonly marks: MarkKeeper
    readonly anchorFile: string | undefined
  },
): Promise<string | undefined> {
  const { signer, marks, anchorFile } = by
  // What others have sealed since, looked at outside of the transaction that seals: it may be a long way.
  let head = await trustedHead(db, { mark: await marks.read(), signer })
  for (let block = 0; block < MAX_BLOCKS; block += 1) {
    const outcome = await sealOnce(db, signer, head)
    if (outcome.kind === 'ahead') return AHEAD
    if (outcome.kind === 'sealed') head = outcome.head
    if (outcome.kind !== 'sealed' || !outcome.isFull) break
  }
  if (head) await marks.write(head)
  if (anchorFile !== undefined) await anchorHeads(db, anchorFile)
  return undefined
}

async function readSigner(keyFile: string | undefined): Promise<SealSigner | undefined> {
  if (keyFile === undefined) return undefined
  try {
    return sealSigner(await readFile(keyFile, 'utf8'))
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause)
    throw new Error(`PURSER_SEAL_KEY_FILE names ${keyFile}, which is no Ed25519 private key in PEM: ${reason}`, {
      cause,
    })
  }
}
