import { connectDatabase } from '#db/database.ts'
import { writeState } from '#db/verify-state.ts'
import { type Verification, verifyLedger, type VerifyOptions } from '#db/verify.ts'
import { writePrivateFile } from '#local/stack-state.ts'
import { readArguments, UsageError } from './arguments.ts'
import type { Outputs, Screen } from './screen.ts'
import { wrapText } from './text-table.ts'
import { findTarget, readStateFile } from './verify-evidence.ts'

const USAGE = `Usage: purser verify [--quick | --incremental] [--state FILE] [--anchor FILE] [--public-key FILE] [--json]

  --quick            balances, versions and holds only
  --incremental      only what came since the last verification that the state file records
  --state FILE       where a verification that found nothing wrong is recorded for the next one (default with
                     --incremental: purser-verify.json in the local stack's data folder, else where you are)
  --anchor FILE      hold the sealed blocks against the heads that were kept in this file
  --public-key FILE  check the blocks' signatures with the keys in this PEM file
  --json             print one JSON document

Recomputes balances, holds, versions, envelopes, lots, limits, prices and sealed blocks from the journal and compares them
with what is stored. Reads the database directly, in short statements while it is busy: that of PURSER_DATABASE_URL, else that
of the running local stack, with its key and its anchor. Ends with 1 when a row is wrong.`

/** Behind `  WRONG `. */
const INDENT = ' '.repeat(8)
const CONNECTIONS = 2

export async function verify(args: readonly string[], { out }: Outputs): Promise<number> {
  const { values } = readArguments(args, {
    options: {
      quick: { type: 'boolean' },
      incremental: { type: 'boolean' },
      state: { type: 'string' },
      anchor: { type: 'string' },
      'public-key': { type: 'string' },
      json: { type: 'boolean' },
      help: { type: 'boolean', short: 'h' },
    },
    usage: USAGE,
  })
  if (values.help) {
    out.line(USAGE)
    return 0
  }
  if (values.quick && values.incremental) throw new UsageError('--quick and --incremental exclude each other.', USAGE)
  const { databaseUrl, evidence, stateFile } = await findTarget(process.env, {
    anchor: values.anchor,
    publicKey: values['public-key'],
    state: values.state,
  })
  const since = values.incremental ? await readStateFile(stateFile) : undefined
  const mode = values.quick ? 'quick' : values.incremental ? 'incremental' : 'everything'
  const { state, ...verification } = await verifyDatabase(databaseUrl, { ...evidence, mode, ...(since && { since }) })
  if (state && (values.incremental || values.state !== undefined)) await writePrivateFile(stateFile, writeState(state))
  if (values.json) out.line(JSON.stringify(verification, undefined, 2))
  else printVerification(out, verification)
  return verification.ok ? 0 : 1
}

export async function verifyDatabase(url: string, options: VerifyOptions = {}): Promise<Verification> {
  const db = connectDatabase({ url, maxConnections: CONNECTIONS, patience: 'unlimited' })
  try {
    return await verifyLedger(db, options)
  } finally {
    await db.destroy()
  }
}

/** One line for each check, a second one for what is wrong, and one for what has to be known. */
export function printVerification(screen: Screen, { ok, checks }: Verification): void {
  for (const { claim, ok: isRight, rows, ms, firstWrong, note } of checks) {
    const mark = isRight ? screen.paint('green', 'ok   ') : screen.paint('red', 'WRONG')
    const text = wrapText(`${claim} (${rows} rows, ${ms} ms)`, { width: screen.width, indent: INDENT })
    screen.line(`  ${mark} ${text.slice(INDENT.length)}`)
    if (firstWrong !== null) screen.line(screen.paint('red', `${INDENT}first: ${firstWrong}`))
    if (note !== null) screen.line(screen.paint('yellow', wrapText(note, { width: screen.width, indent: INDENT })))
  }
  screen.line(ok ? screen.paint('green', '  The ledger is right.') : screen.paint('red', '  The ledger is WRONG.'))
}
