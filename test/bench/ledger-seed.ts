import { callOnceEach, oursOn, startLedgerProcess } from './ledger-ours.ts'
import { withOneOf, type Tenant } from './ledger-tenant.ts'
import { pressCount } from './load.ts'
import { runAll, type BenchDatabase } from './postgres.ts'

/** Many callers fill large batches: the fastest way through the same functions. */
const CALLERS = 512
const CHUNK = 20_000

/** Writes so many holds and captures, every second chunk into one envelope: a long history beside many short ones. */
export async function seed(
  database: BenchDatabase,
  tenant: Tenant,
  options: { readonly transfers: number; readonly say: (what: string) => void },
): Promise<void> {
  const process = await startLedgerProcess(database)
  await callOnceEach(process, tenant)
  const contenders = [oursOn(process, tenant), oursOn(process, withOneOf(tenant))]
  const beganMs = performance.now()
  for (let done = 0; done < options.transfers; done += CHUNK) {
    const operations = Math.min(CHUNK, options.transfers - done)
    const contender = contenders[(done / CHUNK) % contenders.length]
    await contender?.prepare(operations + 2 * CALLERS)
    if (contender) await pressCount(contender, { callers: CALLERS, operations })
    if ((done / CHUNK) % 5 === 4) options.say(`seeded ${done + operations} of ${options.transfers} transfers`)
  }
  await process.stop()
  options.say(`seeded in ${Math.round((performance.now() - beganMs) / 1_000)} s`)
  await settleDown(database)
}

/** What autovacuum and the checkpointer would do a little later anyway, so that they do not do it within the time. */
export async function settleDown(database: BenchDatabase): Promise<void> {
  await runAll(database.adminUrl, ['vacuum (analyze)', 'checkpoint'])
}
