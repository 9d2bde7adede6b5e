import { randomInt } from 'node:crypto'
import { rm } from 'node:fs/promises'
import { parseArgs } from 'node:util'
import { makeScratchFolder } from '../support/scratch-folder.ts'
import { runChaos } from './chaos.ts'
import type { Claim } from './claims.ts'

const USAGE = `npm run chaos -- [--long] [--temporal dev|postgres] [--seed N] [--minutes N]

Kills -9 a random one of the workers, the API, Temporal, Postgres and the provider every few seconds for 3 minutes,
while 20 runs proceed, and then looks whether anything was lost, paid twice or left behind.

  --long       30 minutes and 200 runs
  --temporal   the dev server on a file (dev, the default), or Temporal's own server on a Postgres of its own
  --seed N     the same runs and the same kills again, as far as the machine allows
  --minutes N  another length; 20 runs for each 3 minutes

It ends with 1 when a claim does not hold; what the processes wrote is kept then.
`

const MINUTES = { usual: 3, long: 30 } as const
const RUNS_A_MINUTE = 20 / 3
const MS = 60_000

process.exitCode = await main()

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      long: { type: 'boolean', default: false },
      temporal: { type: 'string', default: 'dev' },
      seed: { type: 'string' },
      minutes: { type: 'string' },
      help: { type: 'boolean', short: 'h', default: false },
    },
  })
  const seed = Number(values.seed ?? randomInt(1_000_000))
  const minutes = Number(values.minutes ?? (values.long ? MINUTES.long : MINUTES.usual))
  const { temporal } = values
  const isGood = Number.isInteger(seed) && minutes > 0 && (temporal === 'dev' || temporal === 'postgres')
  if (values.help || !isGood) {
    process.stderr.write(USAGE)
    return values.help ? 0 : 2
  }
  const beganMs = performance.now()
  const say = (what: string): void => {
    process.stderr.write(`${String(Math.round((performance.now() - beganMs) / 1_000)).padStart(5)} s  ${what}\n`)
  }
  say(`seed ${seed}`)
  const folder = await makeScratchFolder('chaos')
  const runs = Math.max(20, Math.round(minutes * RUNS_A_MINUTE))
  const { claims } = await runChaos({ folder, temporal, durationMs: minutes * MS, runs, seed, say })
  process.stdout.write(`\nchaos on Temporal ${temporal}, ${minutes} minutes, seed ${seed}\n\n${tableOf(claims)}\n`)
  if (!claims.every(({ ok }) => ok)) {
    process.stderr.write(`\nLogs and databases are kept in ${folder}.\n`)
    return 1
  }
  await rm(folder, { recursive: true, force: true })
  return 0
}

function tableOf(claims: readonly Claim[]): string {
  const width = Math.max(...claims.map(({ claim }) => claim.length))
  return claims
    .map(({ claim, numbers, ok }) => `${ok ? 'ok   ' : 'WRONG'}  ${claim.padEnd(width)}  ${numbers}`)
    .join('\n')
}
