import { connectDatabase } from '#db/database.ts'
import { type Verification, verifyLedger } from '#db/verify.ts'
import { readArguments } from './arguments.ts'
import type { Outputs, Screen } from './screen.ts'
import { wrapText } from './text-table.ts'
import { findStack } from './up-state.ts'

const USAGE = `Usage: purser verify [--json]

Recomputes balances, holds, versions, envelopes and prices from the journal and compares them with what is stored. Reads
the database directly: that of PURSER_DATABASE_URL, else that of the running local stack. Ends with 1 when a row is wrong.`

/** Behind `  WRONG `. */
const INDENT = ' '.repeat(8)

export async function verify(args: readonly string[], { out }: Outputs): Promise<number> {
  const { values } = readArguments(args, {
    options: { json: { type: 'boolean' }, help: { type: 'boolean', short: 'h' } },
    usage: USAGE,
  })
  if (values.help) {
    out.line(USAGE)
    return 0
  }
  const verification = await verifyDatabase(await findDatabaseUrl(process.env))
  if (values.json) out.line(JSON.stringify(verification, undefined, 2))
  else printVerification(out, verification)
  return verification.ok ? 0 : 1
}

export async function verifyDatabase(url: string): Promise<Verification> {
  const db = connectDatabase({ url, maxConnections: 1, patience: 'unlimited' })
  try {
    return await verifyLedger(db)
  } finally {
    await db.destroy()
  }
}

/** One line for each check, and a second one for what is wrong. */
export function printVerification(screen: Screen, { ok, checks }: Verification): void {
  for (const { claim, ok: isRight, rows, ms, firstWrong } of checks) {
    const mark = isRight ? screen.paint('green', 'ok   ') : screen.paint('red', 'WRONG')
    const text = wrapText(`${claim} (${rows} rows, ${ms} ms)`, { width: screen.width, indent: INDENT })
    screen.line(`  ${mark} ${text.slice(INDENT.length)}`)
    if (firstWrong !== null) screen.line(screen.paint('red', `${INDENT}first: ${firstWrong}`))
  }
  screen.line(ok ? screen.paint('green', '  The ledger is right.') : screen.paint('red', '  The ledger is WRONG.'))
}

async function findDatabaseUrl(env: NodeJS.ProcessEnv): Promise<string> {
  const given = env['PURSER_DATABASE_URL']
  if (given) return given
  const stack = await findStack(env)
  if (stack) return stack.databaseUrl
  throw new Error(
    'No Purser is running here. Start one with `npm run dev` in another terminal, or set PURSER_DATABASE_URL to its database.',
  )
}
