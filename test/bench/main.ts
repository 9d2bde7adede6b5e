import { parseArgs } from 'node:util'
import { callsBench } from './calls.ts'
import type { Bench, Size } from './frame.ts'
import { ledgerGrowthBench } from './ledger-growth.ts'
import { ledgerBench } from './ledger.ts'
import { runsBench } from './runs.ts'
import { tableOf } from './table.ts'
import { verifyBench } from './verify.ts'

const BENCHES: readonly Bench[] = [ledgerBench, ledgerGrowthBench, verifyBench, callsBench, runsBench]

const USAGE = `npm run bench -- NAME [--json] [--quick | --full]

${BENCHES.map((bench) => `  ${bench.name.padEnd(16)}${bench.says}`).join('\n')}

  --json    prints only the figures, as JSON
  --quick   shows that the bench works; its figures mean nothing
  --full    the largest size

It ends with 1 when a target is missed or the ledger does not verify clean.
`

process.exitCode = await main()

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      json: { type: 'boolean', default: false },
      quick: { type: 'boolean', default: false },
      full: { type: 'boolean', default: false },
    },
  })
  if (positionals.length === 0) {
    process.stdout.write(USAGE)
    return 0
  }
  const bench = BENCHES.find(({ name }) => name === positionals[0])
  if (!bench || positionals.length > 1 || (values.quick && values.full)) {
    process.stderr.write(USAGE)
    return 2
  }
  const size: Size = values.quick ? 'quick' : values.full ? 'full' : 'usual'
  const rows = await bench.run({ size, say: (what) => process.stderr.write(`${what}\n`) })
  const { name } = bench
  process.stdout.write(values.json ? `${JSON.stringify({ bench: name, size, rows })}\n` : `\n${tableOf(rows)}\n`)
  return rows.every((row) => row.ok) ? 0 : 1
}
