import type { AnchorLine } from '#contracts/seals.ts'
import type { Kysely } from 'kysely'
import { BEFORE_ALL, piecesOf, readFrontier, type Frontier, type JournalRange } from './journal-range.ts'
import type { SealPublicKey } from './seal-key.ts'
import type { Database } from './schema.ts'
import { compareAccounts } from './verify-accounts.ts'
import {
  besideEachOther,
  inLanes,
  timed,
  unreadable,
  type Claim,
  type Finding,
  type VerifyCheck,
} from './verify-check.ts'
import { tableChecks } from './verify-checks.ts'
import { compareChildren } from './verify-children.ts'
import { firstOversized } from './verify-first.ts'
import { compareFundings } from './verify-fundings.ts'
import { JournalFold, readRange, type Fold, type Group } from './verify-fold.ts'
import { compareHolds, firstOrphanHold } from './verify-holds.ts'
import { MovementCheck } from './verify-movements.ts'
import { verifyAnchor, verifySeals, type SealFindings, type SealedUpTo } from './verify-seals.ts'
import { compareLeases } from './verify-leases.ts'
import { stateOf, type VerifyState } from './verify-state.ts'
import { isBusy } from './verify-lookup.ts'
import { runTableCheck, type Reach, type TableCheck } from './verify-table.ts'

export interface Verification {
  readonly ok: boolean
  readonly checks: readonly VerifyCheck[]
  /** For the next incremental verification; undefined when something is wrong, or not all was looked at. */
  readonly state?: VerifyState
}

export interface VerifyOptions {
  /** `quick`: the four core claims only. `incremental`: only what came since `since`. */
  readonly mode?: 'everything' | 'quick' | 'incremental'
  readonly since?: VerifyState
  /** Heads that were kept outside the database. */
  readonly anchor?: readonly AnchorLine[]
  readonly publicKeys?: readonly SealPublicKey[]
  /** Rows of the journal that one statement reads. */
  readonly pieceRows?: number
  /** A longer journal is not joined as a whole with what it names, but looked up row by row; so is that of a busy ledger. */
  readonly maxWholeRows?: number
}

/** Rows of one statement: some hundreds of milliseconds, because a longer snapshot slows the accounts that are written. */
const PIECE_ROWS = 50_000
/** A statement over whole tables of this size takes some ten seconds, and holds its snapshot as long. */
const MAX_WHOLE_ROWS = 2_500_000
/** What came while the journal was read is read as well, until little is left; that little is read with the accounts. */
const MAX_ROUNDS = 5

const CLAIMS = {
  journal: { name: 'journal', claim: 'the journal is read up to where nothing can appear in it any more' },
  fold: { name: 'fold', claim: 'every guarded account equals the fold of its movements' },
  versions: {
    name: 'versions',
    claim: 'the movements of an account are numbered without a gap, up to its version',
  },
  neverNegative: {
    name: 'never negative',
    claim: 'at every version an account has what it held, and the balance written then is the one its movements give',
  },
  holds: { name: 'holds', claim: 'a hold resolves at most once, from its own account and with all it held' },
  tenants: {
    name: 'tenants',
    claim: 'both sides of a movement belong to its project and its currency, and a guarded side has a version',
  },
  movements: { name: 'movements', claim: 'money moves only between the kinds of accounts that its code allows' },
  fundings: {
    name: 'fundings',
    claim: 'what moves between wallets and envelopes names envelopes, lots and quotes that are there, at their rate',
  },
  children: { name: 'children', claim: 'a child has its money from its own parent, and never more than its cap' },
  leases: {
    name: 'leases',
    claim: 'every lease has used and holds what its attempts have used and hold, and lends no less',
  },
  seals: { name: 'seals', claim: 'the journal has the rows that were sealed, block by block, in one chain' },
  signatures: { name: 'signatures', claim: 'the blocks are signed with the key that is kept outside the database' },
  anchor: { name: 'anchor', claim: 'every head that was kept outside the database still stands in it' },
} as const satisfies Record<string, Claim>

/**
 * Recomputes what the ledger says from its journal, over all tenants, and compares. Reads only, in statements that block
 * nobody. While the ledger is busy all of them are short; when it is quiet, tables of calls are read as a whole.
 */
export async function verifyLedger(db: Kysely<Database>, options: VerifyOptions = {}): Promise<Verification> {
  const mode = options.mode ?? 'everything'
  const since = mode === 'incremental' ? options.since : undefined
  const journal = await readJournal(db, { since, pieceRows: options.pieceRows ?? PIECE_ROWS })
  const checks = [journal.check]
  // What could not be read whole is not compared with anything: every sum would be wrong.
  if (journal.check.ok) checks.push(...(await coreChecks(db, journal)))
  if (mode === 'quick') return { ok: isRight(checks), checks }
  if (journal.check.ok) checks.push(...(await journalChecks(db, journal)))
  checks.push(...(await rowChecks(db, journal.range, await reachOf(db, journal, options))))
  const seals = await sealChecks(db, options, { frontier: journal.frontier, from: since?.sealedUpTo })
  checks.push(...seals.checks)
  if (!isRight(checks) || !seals.upTo) return { ok: false, checks }
  return { ok: true, checks, state: stateOf(journal.fold, { place: journal.range.upTo, sealed: seals.upTo }) }
}

async function reachOf(
  db: Kysely<Database>,
  { check, fold, range }: Journal,
  { mode, since, maxWholeRows = MAX_WHOLE_ROWS }: VerifyOptions,
): Promise<Reach> {
  if (mode === 'incremental' && since) return { kind: 'moved', range }
  // What could not be read whole may be of any length.
  const isSmall = check.ok && fold.rows <= BigInt(maxWholeRows)
  return { kind: isSmall && !(await isBusy(db)) ? 'whole' : 'pieces' }
}

function isRight(checks: readonly VerifyCheck[]): boolean {
  return checks.every(({ ok }) => ok)
}

interface Journal {
  readonly check: VerifyCheck
  readonly frontier: Frontier
  readonly range: JournalRange
  readonly start: ReadonlyMap<string, Fold>
  readonly fold: JournalFold
  readonly movements: MovementCheck
}

async function readJournal(
  db: Kysely<Database>,
  { since, pieceRows }: { readonly since: VerifyState | undefined; readonly pieceRows: number },
): Promise<Journal> {
  const start = since?.accounts ?? new Map<string, Fold>()
  const accounts = new Map([...start].map(([id, fold]) => [id, { ...fold }]))
  const fold = new JournalFold({ ...since, accounts })
  const movements = new MovementCheck(db)
  let upTo = since?.upTo ?? BEFORE_ALL
  let frontier = await readFrontier(db)
  let firstWrong: string | null = null
  const check = await timed(CLAIMS.journal, async () => {
    for (let round = 1; ; round += 1) {
      const before = fold.rows
      await inLanes(piecesOf(db, { after: upTo, upTo: frontier.upTo }, pieceRows), async (piece) => {
        const groups = await readPiece(db, piece)
        if (typeof groups === 'string') return void (firstWrong ??= groups)
        fold.add(groups)
        await movements.look(piece, groups)
      })
      upTo = frontier.upTo
      if (round === MAX_ROUNDS || fold.rows - before < BigInt(pieceRows)) break
      frontier = await readFrontier(db)
    }
    return { rows: Number(fold.rows), firstWrong, note: frontier.isAhead ? AHEAD : null }
  })
  return { check, frontier, range: { after: since?.upTo ?? BEFORE_ALL, upTo }, start, fold, movements }
}

/** The rows of a piece, added up; or its first row that cannot be added up, in words. */
async function readPiece(db: Kysely<Database>, piece: JournalRange): Promise<readonly Group[] | string> {
  return readRange(db, piece).catch(async (error: unknown) => {
    const reason = unreadable(error)
    if (reason === undefined) throw error
    return `${await firstOversized(db, piece)}: ${reason}`
  })
}

const AHEAD =
  'the journal names transactions that this cluster has not had yet: it was restored from a dump. Before anything is written to it, stop it and advance its transactions (pg_resetwal --next-transaction-id), or what is written will come before what is sealed'

async function coreChecks(db: Kysely<Database>, journal: Journal): Promise<readonly VerifyCheck[]> {
  const { fold, start, range } = journal
  let accounts: Awaited<ReturnType<typeof compareAccounts>> | undefined
  const compare = async () => {
    accounts ??= await compareAccounts(db, { fold, start, upTo: range.upTo })
    return accounts
  }
  return [
    await timed(CLAIMS.fold, async () => (await compare()).fold),
    await timed(CLAIMS.versions, async () => (await compare()).versions),
    await timed(CLAIMS.neverNegative, async () => (await compare()).neverNegative),
    await timed(CLAIMS.holds, () => compareHolds(db, { fold, range })),
  ]
}

async function journalChecks(
  db: Kysely<Database>,
  { fold, movements, range }: Journal,
): Promise<readonly VerifyCheck[]> {
  let found: { readonly tenants: Finding; readonly movements: Finding } | undefined
  const find = async () => {
    found ??= await movements.findings(Number(fold.rows))
    return found
  }
  return [
    await timed(CLAIMS.tenants, async () => (await find()).tenants),
    await timed(CLAIMS.movements, async () => (await find()).movements),
    await timed(CLAIMS.fundings, () => compareFundings(db, { range, rows: Number(fold.rows) })),
    await timed(CLAIMS.children, () => compareChildren(db, fold)),
  ]
}

async function rowChecks(db: Kysely<Database>, range: JournalRange, reach: Reach): Promise<readonly VerifyCheck[]> {
  const asked = tableChecks.filter(({ movedBy }) => reach.kind !== 'moved' || movedBy !== null)
  const works = asked.map((check) => () => timed(check, () => rowCheck(db, check, { range, reach })))
  const { upTo } = range
  if (reach.kind !== 'moved') works.push(() => timed(CLAIMS.leases, () => compareLeases(db, { upTo, reach })))
  return besideEachOther(works)
}

async function rowCheck(
  db: Kysely<Database>,
  check: TableCheck,
  { range, reach }: { readonly range: JournalRange; readonly reach: Reach },
): Promise<Finding> {
  const finding = await runTableCheck(db, check, reach)
  if (check.name !== 'attempts' || finding.firstWrong !== null) return finding
  return { ...finding, firstWrong: await firstOrphanHold(db, { range, reach }) }
}

async function sealChecks(
  db: Kysely<Database>,
  { anchor, publicKeys = [] }: VerifyOptions,
  place: { readonly frontier: Frontier; readonly from: SealedUpTo | undefined },
): Promise<{ readonly checks: readonly VerifyCheck[]; readonly upTo: SealedUpTo | undefined }> {
  const { frontier, from } = place
  const read: SealFindings[] = []
  const checks = [
    await timed(CLAIMS.seals, async () => {
      const found = await verifySeals(db, { frontier, publicKeys, ...(from && { from }) })
      read.push(found)
      return found.seals
    }),
  ]
  for (const { signatures } of read) checks.push(await timed(CLAIMS.signatures, () => Promise.resolve(signatures)))
  if (anchor) checks.push(await timed(CLAIMS.anchor, () => verifyAnchor(db, { lines: anchor, publicKeys })))
  return { checks, upTo: read[0]?.upTo }
}
