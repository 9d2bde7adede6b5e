import { reconcile } from '#calls/reconcile.ts'
import type { PocketKey } from '#db/hold.ts'
import { endLease } from '#db/instance.ts'
import { migrate } from '#db/migrate.ts'
import { cacheFolder } from '#local/cache.ts'
import { startPostgres } from '#local/postgres.ts'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { RealLedger } from '../support/ledger-real.ts'
import { expectVerified } from '../support/open-attempt.ts'
import { pollUntil } from '../support/poll.ts'
import { useScratchFolder } from '../support/scratch.ts'
import { forever, holdOf, openCalls, pocketOf, settlementOf, startProcess, type Process } from '../support/storm.ts'

const CALLERS = 24
const ACKNOWLEDGED_BEFORE_THE_KILL = 400

test('Postgres is killed under load: what was acknowledged is there afterwards, once, and no hold is left for good', async () => {
  const server = await useServer()
  const urls = await migrate({ adminUrl: server.adminUrl(), ownerPassword: 'owner', appPassword: 'app' })
  const processes = [await startProcess(urls.appUrl), await startProcess(urls.appUrl)]
  const [process] = processes
  if (!process) throw new Error('no process')
  const ledger = new RealLedger(process)
  await ledger.create()
  await ledger.apply({ kind: 'deposit', reference: 'first', balanceClass: 'direct', amount: 10n ** 12n })
  await ledger.apply({ kind: 'deposit', reference: 'second', balanceClass: 'credit', amount: 10n ** 12n })
  await ledger.apply({ kind: 'open', envelope: 'hot', direct: 10n ** 11n, credit: 10n ** 11n })
  const place = { ...ledger.run('hot'), scope: ledger.scope }
  const pockets = await Promise.all(
    (['direct', 'credit'] as const).map((balanceClass) =>
      pocketOf(process.db, ledger.scope, { ...place, balanceClass }),
    ),
  )
  const acknowledged = new Set<string>()
  const inDoubt: (() => Promise<string>)[] = []
  const callers = Array.from({ length: CALLERS }, (_, index) => {
    const own = processes[index % processes.length] ?? process
    const pocket = pockets[index % pockets.length] ?? { projectId: '', accountId: '' }
    return callUntilItDies(own, { ...place, pocket }, { acknowledged, inDoubt })
  })
  await pollUntil(() => acknowledged.size >= ACKNOWLEDGED_BEFORE_THE_KILL, { what: 'load', deadlineMs: 30_000 })
  await server.kill()
  await Promise.all(callers)
  await server.start()

  await pollUntil(() => process.db.selectFrom('instance').select('id').execute(), { what: 'the database to answer' })
  const rows = await process.db.selectFrom('transfer').select('id').execute()
  const ids = new Set(rows.map(({ id }) => id))
  expect([...acknowledged].filter((id) => !ids.has(id))).toEqual([])
  await expectVerified(process)
  // Whoever got no answer asks again, and is told the same or gets it now.
  const verdicts = await Promise.all(inDoubt.map((repeat) => repeat()))
  expect(verdicts.filter((verdict) => !['granted', 'settled', 'replayed'].includes(verdict))).toEqual([])
  await expectVerified(process)

  for (const { db, instanceId } of processes) await endLease(db, instanceId)
  const request = { organisationId: ledger.organisationId, policy: 'maximum', by: 'a test' } as const
  await Promise.all(processes.map(({ db }) => reconcile(db, request)))
  const open = await process.db.selectFrom('attempt').select('call_id').where('state', '=', 'sent').execute()
  expect(open).toEqual([])
  expect(await ledger.apply({ kind: 'close', envelope: 'hot' })).toBe('closed')
  await expectVerified(process)
})

/** Holds and settles, call after call, until the database is gone. One call in eight dies with its hold open. */
async function callUntilItDies(
  { db, queue }: Process,
  at: {
    readonly scope: { readonly projectId: string }
    readonly runId: string
    readonly envelopeId: string
    readonly pocket: PocketKey
  },
  seen: { readonly acknowledged: Set<string>; readonly inDoubt: (() => Promise<string>)[] },
): Promise<void> {
  for (let turn = 0; ; turn += 1) {
    const calls = await openCalls(db, at.scope, { ...at, count: 1 }).catch(() => [])
    const [call] = calls
    if (!call) return
    const hold = holdOf(call, 1_000n)
    const reserve = async () => (await queue.reserve(at.pocket, hold, forever())).verdict
    if (!(await isAnswered(reserve, hold.holdId, seen))) return
    if (turn % 8 === 7) continue
    const settlement = settlementOf(call, 700n, { answer: 'done' })
    const settle = async () => (await queue.settle(at.pocket, settlement)).verdict
    if (!(await isAnswered(settle, settlement.resolutionId, seen))) return
  }
}

async function isAnswered(
  work: () => Promise<string>,
  id: string,
  seen: { readonly acknowledged: Set<string>; readonly inDoubt: (() => Promise<string>)[] },
): Promise<boolean> {
  try {
    await work()
    seen.acknowledged.add(id)
    return true
  } catch {
    seen.inDoubt.push(work)
    return false
  }
}

/** A Postgres of its own that comes back on the port it had. */
async function useServer() {
  const folder = await useScratchFolder()
  const options = {
    cacheDir: cacheFolder(globalThis.process.env),
    dataDir: folder,
    logFile: join(folder, 'log'),
    durable: true,
  }
  let server = await startPostgres(options)
  onTestFinished(() => server.stop())
  return {
    adminUrl: () => server.adminUrl,
    kill: () => server.kill(),
    async start() {
      server = await startPostgres({ ...options, port: server.port })
    },
  }
}
