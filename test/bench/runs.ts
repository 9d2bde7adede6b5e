import { storeDataset } from '#api/dataset-upload.ts'
import { rowOf, type Bench, type BenchOptions, type Row, type Target } from './frame.ts'
import { verifyClean, withServer } from './postgres.ts'
import { latencyRows, memoryRow } from './runs-idle.ts'
import { withStage, type Side, type Stage, type Storage } from './runs-stage.ts'

interface Amounts {
  readonly repetitions: number
  /** Workflows at the same time, and calls of each, one after another. */
  readonly workflows: number
  readonly steps: number
  readonly rows: number
}

/** What both sides do, in the words of each. */
interface Work {
  readonly metric: string
  /** Operations of one repetition. */
  readonly count: number
  readonly target?: Target
  readonly agents: Readonly<Record<Side['name'], string>>
  inputs(side: Side, repetition: string): Promise<readonly object[]>
}

const USUAL: Amounts = { repetitions: 7, workflows: 16, steps: 20, rows: 1_600 }
const QUICK: Amounts = { repetitions: 1, workflows: 4, steps: 3, rows: 40 }
const FULL: Amounts = { repetitions: 7, workflows: 50, steps: 20, rows: 2_000 }
/** Repetitions that do not count: a worker needs a fifth more for a step at first, while its code is not yet compiled. */
const WARM_UPS = 3
const MAP_CONCURRENCY = 32
const MAP_LATENCY_MS = 50
/** Least share of the bare steps a second. */
const STEPS_AT_LEAST: Readonly<Record<Storage, number>> = { file: 0.85, memory: 0.8 }
const MAP_AT_LEAST = 5
const STORAGE_NAMES: Readonly<Record<Storage, string>> = {
  file: 'dev server on a file',
  memory: 'dev server in memory',
}

export const runsBench: Bench = {
  name: 'runs',
  says: 'runs beside the same workflows without ledger and engine; rows; time to the first call; memory',
  run: (options) =>
    withServer(options, async (server) => {
      const rows: Row[] = []
      for (const storage of ['file', 'memory'] as const) {
        rows.push(
          ...(await withStage(server, storage, async (stage) => {
            const found = await measureOn(stage, storage, options)
            options.say('verifying')
            await verifyClean(stage.database)
            return found
          })),
        )
      }
      return rows
    }),
}

async function measureOn(stage: Stage, storage: Storage, options: BenchOptions): Promise<readonly Row[]> {
  const amounts = { quick: QUICK, usual: USUAL, full: FULL }[options.size]
  const setting = { stage, storage, options, amounts }
  const rows = [await measure(setting, stepsOf(storage, amounts))]
  await stage.provider.delay(MAP_LATENCY_MS)
  rows.push(await measure(setting, mapOf(stage, storage, amounts)))
  await stage.provider.delay(0)
  rows.push(...(await latencyRows(stage, STORAGE_NAMES[storage], options)))
  if (storage === 'memory') rows.push(await memoryRow(stage, options))
  return rows
}

function stepsOf(storage: Storage, { workflows, steps }: Amounts): Work {
  return {
    metric: `steps a second, ${workflows} runs of ${steps} one-call steps`,
    count: workflows * steps,
    target: { bound: 'at least', value: STEPS_AT_LEAST[storage] },
    agents: { ours: 'stepper', bare: 'stepper' },
    inputs: (_, repetition) =>
      Promise.resolve(
        Array.from({ length: workflows }, (__, index) => ({ count: steps, head: `${repetition}-${index}` })),
      ),
  }
}

/** One run over all rows: ours in few activities, the bare one in one a row, as many at once. */
function mapOf({ db, tenant }: Stage, storage: Storage, { rows }: Amounts): Work {
  const concurrency = MAP_CONCURRENCY
  return {
    metric: `rows a second, ${rows} rows, ${concurrency} at once, ${MAP_LATENCY_MS} ms each : one activity a row`,
    count: rows,
    ...(storage === 'file' && { target: { bound: 'at least', value: MAP_AT_LEAST } }),
    agents: { ours: 'map', bare: 'oneByOne' },
    async inputs(side, head) {
      if (side.name === 'bare') return [{ rows, concurrency, head }]
      const lines = Array.from({ length: rows }, (_, index) => `${head}-${index + 1}`)
      const content = Buffer.from(['word', ...lines].join('\n'))
      const file = { name: head, format: 'csv', content } as const
      const { id: datasetId } = await storeDataset(db, tenant.scope, { file, nowMs: Date.now() })
      return [{ datasetId, prompt: 'Say whether {{word}} is a harbour.', maxTokens: 64, concurrency }]
    },
  }
}

interface Setting {
  readonly stage: Stage
  readonly storage: Storage
  readonly options: BenchOptions
  readonly amounts: Amounts
}

async function measure({ stage, storage, options, amounts }: Setting, work: Work): Promise<Row> {
  const { ours, bare } = stage
  const found: { readonly ours: number; readonly bare: number }[] = []
  for (let turn = -WARM_UPS; turn < amounts.repetitions; turn += 1) {
    const order = turn % 2 === 0 ? [ours, bare] : [bare, ours]
    const perSecond = { ours: 0, bare: 0 }
    for (const side of order) perSecond[side.name] = await perSecondOf(side, work, `${storage}-${turn}-${Date.now()}`)
    if (turn >= 0) found.push(perSecond)
  }
  const pairs = found.map((pair) => `${Math.round(pair.ours)}:${Math.round(pair.bare)}`)
  options.say(`${STORAGE_NAMES[storage]}, ${work.metric}: ours to bare ${pairs.join(' ')}`)
  return rowOf({
    case: STORAGE_NAMES[storage],
    metric: work.metric,
    ours: found.map((pair) => pair.ours),
    baseline: found.map((pair) => pair.bare),
    ...(work.target && { target: work.target }),
  })
}

/** From the first workflow's start to the last one's end, with what begins and finishes each run. */
async function perSecondOf(side: Side, work: Work, repetition: string): Promise<number> {
  const runs = await side.prepare(work.agents[side.name], await work.inputs(side, repetition))
  const beganMs = performance.now()
  await Promise.all(
    runs.map(async (run) => {
      await run.start()
      await run.ended()
    }),
  )
  return (work.count / (performance.now() - beganMs)) * 1_000
}
