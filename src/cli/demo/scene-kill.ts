import { setTimeout as delay } from 'node:timers/promises'
import type { EventView } from '#contracts/api-event.ts'
import type { CallReport } from '#contracts/report.ts'
import { type ProgressOutput, withProgress } from '#local/progress.ts'
import { printCalls } from '../print-report.ts'
import type { Screen } from '../screen.ts'
import { ampleDirect } from './envelope-sizes.ts'
import { listenForHold } from './hold-notice.ts'
import { printProof, printRequests } from './proof.ts'
import type { SandboxControl } from './sandbox-control.ts'
import {
  type Evidence,
  gatherEvidence,
  printText,
  requestsOf,
  requireState,
  type SceneName,
  type Stage,
  startRun,
  watchRun,
} from './stage.ts'

const POLL_MS = 50
/** Longer than a run takes until its last call, on a slow machine. */
const DEADLINE_MS = 60_000
const PROGRESS_EVERY_MS = 4_000

/** A run that is being watched, and its last call, which the provider keeps open. */
interface HeldRun {
  readonly runId: string
  readonly held: CallReport
  readonly holdId: string
  readonly watched: ReturnType<typeof watchRun>
  /** The events that people have seen so far. */
  readonly shown: readonly EventView[]
}

/** SIGKILL while the provider holds a request open: nobody knows what became of it. */
export async function playKilled(stage: Stage, sandbox: SandboxControl, like: Evidence): Promise<Evidence> {
  printText(
    stage.screen,
    'The provider is told to keep the last request of the next run open, and to say when it does: that is when the ' +
      'worker is killed. Nobody can know then whether the request was executed.\n',
  )
  const run = await runUntilHeld(stage, sandbox, like)
  await killWorker(stage, `The provider holds “${run.held.path}” open`)
  await startAnotherWorker(stage)
  return finishScene(stage, run, { name: 'killed', expected: 2 })
}

/** SIGKILL after the answer was stored, before the activity could say that it is done. */
export async function playKilledAfterAnswer(stage: Stage, sandbox: SandboxControl, like: Evidence): Promise<Evidence> {
  const { screen, stack } = stage
  printText(
    screen,
    'Once more, but a moment later: the network between worker and Temporal is unplugged, the provider answers, the ' +
      'answer is stored and paid, and the worker is killed before it could tell Temporal.\n',
  )
  const run = await runUntilHeld(stage, sandbox, like)
  stack.cable.unplug()
  await sandbox.release(run.holdId)
  await until(`“${run.held.path}” is answered`, async () => {
    const calls = await callsOf(stage, run.runId)
    return calls.find(({ id, state }) => id === run.held.id && state === 'answered' && isShown(calls, run.shown))
  })
  await killWorker(stage, `“${run.held.path}” is answered and paid, and Temporal does not know`)
  stack.cable.cut()
  stack.cable.plug()
  await startAnotherWorker(stage)
  return finishScene(stage, run, { name: 'killed-after-answer', expected: 1 })
}

/** Starts a run whose last call the provider holds open; all calls before it are answered when this returns. */
async function runUntilHeld(stage: Stage, sandbox: SandboxControl, like: Evidence): Promise<HeldRun> {
  const { model } = stage
  const callsBefore = like.report.calls.length - 1
  const notice = await listenForHold()
  try {
    const holdId = await sandbox.armHold({ afterRequests: callsBefore, notifyUrl: notice.url })
    const { id: runId } = await startRun(stage, { model, direct: ampleDirect(model), onExhausted: 'cancel' })
    const shown: EventView[] = []
    const watched = watchRun(stage, runId, { onShown: (event) => void shown.push(event) })
    const tooSoon = watched.then(() => Promise.reject(new Error('The run ended before the provider held a request.')))
    await Promise.race([notice.arrived, tooSoon])
    tooSoon.catch(() => undefined) // it ends later, as it should
    const held = await until('every call but the held one is answered', async () => {
      const calls = await callsOf(stage, runId)
      const open = calls.filter(({ state }) => state === 'open')
      return open.length === 1 && calls.length > callsBefore && isShown(calls, shown) ? open[0] : undefined
    })
    return { runId, held, holdId, watched, shown }
  } finally {
    await notice.close()
  }
}

async function killWorker({ screen, worker }: Stage, why: string): Promise<void> {
  worker.kill('SIGKILL')
  await worker.exited
  screen.line(screen.paint('red', `${why}: SIGKILL to the worker, process ${worker.pid}.`))
}

async function startAnotherWorker(stage: Stage): Promise<void> {
  const { screen, stack } = stage
  stage.worker = await tellProgress(screen, 'Starting another worker', () => stack.startWorker())
  screen.line(screen.paint('green', `Another worker is up, process ${stage.worker.pid}.`))
}

async function finishScene(
  stage: Stage,
  { runId, held, watched }: HeldRun,
  { name, expected }: { readonly name: SceneName; readonly expected: number },
): Promise<Evidence> {
  const { screen } = stage
  const label = "Waiting until the dead worker's lease and heartbeat run out (10 s)"
  const { run } = await tellProgress(screen, label, () => watched)
  requireState(run, 'completed')
  const evidence = await gatherEvidence(stage, name, run)
  const { report, providerAnswersByCallKey } = evidence
  const wrong = Object.entries(providerAnswersByCallKey ?? {}).find(
    ([id, count]) => count !== (id === held.id ? expected : 1),
  )
  if (wrong) throw new Error(`The provider began to answer the call ${wrong[0]} ${wrong[1]} times.`)
  const times = expected === 1 ? 'every call once: zero repeats' : `“${held.path}” exactly twice, every other call once`
  screen.line(`\nThe provider's own log: it began to answer ${times}.`)
  printRequests(screen, report, (await requestsOf(stage, report)) ?? [])
  screen.line(`\nThe report about run ${runId}, call “${held.path}”:`)
  printCalls(screen, { model: report.model, calls: report.calls.filter(({ id }) => id === held.id) })
  await printProof(stage, evidence)
  return evidence
}

/** Whether the end of every attempt was shown already: what is told next then comes in its order. */
function isShown(calls: readonly CallReport[], shown: readonly EventView[]): boolean {
  const ended = calls.flatMap(({ attempts }) => attempts.filter(({ outcome }) => outcome !== null))
  return shown.filter(({ kind }) => kind.startsWith('attempt.')).length >= ended.length
}

async function callsOf({ api }: Stage, runId: string): Promise<readonly CallReport[]> {
  return (await api.get('/runs/{id}/calls', { params: { path: { id: runId } } })).calls
}

async function until<Found>(what: string, look: () => Promise<Found | undefined>): Promise<Found> {
  const deadline = performance.now() + DEADLINE_MS
  for (;;) {
    const found = await look()
    if (found !== undefined) return found
    if (performance.now() > deadline) throw new Error(`Not within ${DEADLINE_MS / 1000} s: ${what}.`)
    await delay(POLL_MS)
  }
}

/** Between lines about a run, progress is lines too: one that rewrites itself would be torn apart. */
function tellProgress<Result>(screen: Screen, label: string, task: () => Promise<Result>): Promise<Result> {
  const output: ProgressOutput = { isTTY: false, write: (text) => screen.line(screen.paint('dim', text.trimEnd())) }
  return withProgress(label, task, { output, lineEveryMs: PROGRESS_EVERY_MS })
}
