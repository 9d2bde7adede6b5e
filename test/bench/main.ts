import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { callsBench } from './calls.ts'
import type { Bench, Peer, Size } from './frame.ts'
import { gatewayBench } from './gateway.ts'
import { ledgerGrowthBench } from './ledger-growth.ts'
import { ledgerBench } from './ledger.ts'
import { runsBench } from './runs.ts'
import { tableOf } from './table.ts'
import { verifyBench } from './verify.ts'

const BENCHES: readonly Bench[] = [ledgerBench, ledgerGrowthBench, verifyBench, callsBench, gatewayBench, runsBench]

const USAGE = `npm run bench -- NAME [--json] [--quick | --full]

${BENCHES.map((bench) => `  ${bench.name.padEnd(16)}${bench.says}`).join('\n')}

  --json    prints only the figures, as JSON
  --quick   shows that the bench works; its figures mean nothing
  --full    the largest size

  --postgres FOLDER
            with another Postgres 18, whose initdb and postgres are in this folder: the npm package's is compiled for
            size, those of distributions for speed

  --peer-url URL [--peer-key KEY] [--peer-model MODEL] [--provider-port PORT]
            gateway: rows of another gateway too, whose base URL this is. Tell it before to ask
            http://127.0.0.1:PORT/v1 (4010) with the key sandbox-key for sandbox-echo.

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
      postgres: { type: 'string' },
      'peer-url': { type: 'string' },
      'peer-key': { type: 'string', default: 'bench' },
      'peer-model': { type: 'string', default: 'sandbox-echo' },
      'provider-port': { type: 'string', default: '4010' },
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
  if (values.postgres !== undefined && !existsSync(join(values.postgres, 'initdb'))) {
    process.stderr.write(
      `There is no initdb in ${values.postgres}: --postgres takes the folder with initdb and postgres.\n`,
    )
    return 2
  }
  const size: Size = values.quick ? 'quick' : values.full ? 'full' : 'usual'
  const url = values['peer-url']
  const peer: Peer | undefined =
    url === undefined
      ? undefined
      : { url, key: values['peer-key'], model: values['peer-model'], providerPort: Number(values['provider-port']) }
  const say = (what: string) => process.stderr.write(`${what}\n`)
  const rows = await bench.run({ size, say, postgres: values.postgres, ...(peer && { peer }) })
  const { name } = bench
  process.stdout.write(values.json ? `${JSON.stringify({ bench: name, size, rows })}\n` : `\n${tableOf(rows)}\n`)
  return rows.every((row) => row.ok) ? 0 : 1
}
