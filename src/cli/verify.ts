import { connectDatabase } from '#db/database.ts'
import { verifyLedger, type VerifyCheck } from '#db/verify.ts'
import { readArguments } from './arguments.ts'
import type { Outputs, Screen } from './screen.ts'
import { formatTable } from './text-table.ts'
import { findStack } from './up-state.ts'

const USAGE = `Usage: purser verify [--json]

Recomputes balances, holds, versions, envelopes and prices from the journal and compares them with what is stored. Reads
the database directly: that of PURSER_DATABASE_URL, else that of the running local stack. Ends with 1 when a row is wrong.`

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

export async function verifyDatabase(url: string) {
  const db = connectDatabase({ url, maxConnections: 1 })
  try {
    return await verifyLedger(db)
  } finally {
    await db.destroy()
  }
}

/** One line for each check. */
export function printVerification(
  screen: Screen,
  { ok, checks }: { readonly ok: boolean; readonly checks: readonly VerifyCheck[] },
): void {
  const rows = checks.map((check) => [
    check.ok ? 'ok' : 'WRONG',
    check.name,
    String(check.rows),
    `${check.ms} ms`,
    check.claim,
  ])
  const columns = [
    { title: '' },
    { title: 'check' },
    { title: 'rows', align: 'right' },
    { title: 'time', align: 'right' },
    { title: 'what holds' },
  ] as const
  const [title = '', ...lines] = formatTable(columns, rows)
  screen.line(screen.paint('dim', `  ${title}`))
  for (const [index, check] of checks.entries()) {
    screen.line(screen.paint(check.ok ? 'green' : 'red', `  ${lines[index] ?? ''}`))
    if (check.firstWrong !== null) screen.line(screen.paint('red', `         first wrong row: ${check.firstWrong}`))
  }
  screen.line(ok ? '  The ledger is right.' : '  The ledger is WRONG.')
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
