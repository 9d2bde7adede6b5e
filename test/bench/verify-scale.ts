import { mkdir } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { connectDatabase } from '#db/database.ts'
import { sealOnce } from '#db/seal.ts'
import { verifyLedger, type VerifyOptions } from '#db/verify.ts'
import { cacheFolder } from '#local/cache.ts'
import { startPostgres } from '#local/postgres.ts'
import { prepareDatabase } from '#local/stack-database.ts'
import { seedLedger } from './verify-seed.ts'

/**
 * How long `verify` takes on a big ledger, which is made once and kept:
 * node test/bench/verify-scale.ts --seed, then without --seed as often as wanted.
 */
const { values } = parseArgs({
  options: {
    data: { type: 'string', default: join(cacheFolder(process.env), 'test', 'verify-scale') },
    calls: { type: 'string', default: '1000000' },
    envelopes: { type: 'string', default: '1000' },
    seed: { type: 'boolean', default: false },
    more: { type: 'string', default: '5000' },
  },
})
const dataDir = resolve(values.data)
await mkdir(dataDir, { recursive: true })
const postgres = await startPostgres({
  cacheDir: cacheFolder(process.env),
  dataDir,
  logFile: join(dataDir, 'postgres.log'),
  durable: !values.seed,
})
try {
  const { appUrl } = await prepareDatabase(postgres.adminUrl)
  if (values.seed) await seedLedger(appUrl, { calls: Number(values.calls), envelopes: Number(values.envelopes) })
  else await measure(appUrl)
} finally {
  await postgres.stop()
}

async function measure(appUrl: string): Promise<void> {
  await sealAll(appUrl)
  await report(appUrl, { mode: 'quick' })
  const { state } = await report(appUrl, {})
  await seedLedger(appUrl, { calls: Number(values.more), envelopes: 10 })
  await sealAll(appUrl)
  if (state) await report(appUrl, { mode: 'incremental', since: state })
}

async function sealAll(url: string): Promise<void> {
  const db = connectDatabase({ url, maxConnections: 1 })
  const startedMs = performance.now()
  let rows = 0
  for (;;) {
    const outcome = await sealOnce(db, undefined)
    if (outcome.kind !== 'sealed') break
    rows += outcome.rows
  }
  await db.destroy()
  say(`sealed ${rows} rows in ${Math.round(performance.now() - startedMs)} ms`)
}

async function report(url: string, options: VerifyOptions) {
  const db = connectDatabase({ url, maxConnections: 2, patience: 'unlimited' })
  const startedMs = performance.now()
  const verification = await verifyLedger(db, options)
  const totalMs = Math.round(performance.now() - startedMs)
  say(`verify ${options.mode ?? 'everything'}: ${totalMs} ms`)
  for (const { name, ms, rows, firstWrong } of verification.checks) {
    say(`  ${name.padEnd(16)} ${String(rows).padStart(9)} rows ${String(ms).padStart(7)} ms  ${firstWrong ?? ''}`)
  }
  await db.destroy()
  return verification
}

function say(line: string): void {
  process.stdout.write(`${line}\n`)
}
