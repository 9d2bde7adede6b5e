import { setTimeout as delay } from 'node:timers/promises'
import { withProgress, type ProgressOutput } from '#local/progress.ts'
import { callReportSchema, type CallReport } from '#contracts/report.ts'
import { z } from 'zod'
import type { Screen } from '../screen.ts'
import { printCalls } from '../print-report.ts'
import { ampleDirect } from './envelope-sizes.ts'
import { listenForHold } from './hold-notice.ts'
import { printProof, printRequests } from './proof.ts'
import { requireState } from './scene-money.ts'
import type { SandboxControl } from './sandbox-control.ts'
import {
  type Evidence,
  gatherEvidence,
  printText,
  requestsOf,
  type SceneName,
  type Stage,
  startRun,
  watchRun,
} from './stage.ts'

const POLL_MS = 50
const DEADLINE_MS = 30_000
const PROGRESS_EVERY_MS = 4_000

const callsSchema = z.object({ calls: z.array(callReportSchema) })

/** SIGKILL while the provider holds a request open: nobody knows what became of it. */
export async function playKilled(stage: Stage, sandbox: SandboxControl, like: Evidence): Promise<Evidence> {
  const { screen } = stage
  printText(
    screen,
    'The provider is told to keep the last request of the next run open, and to say so. Then the worker is killed ' +
      'with SIGKILL, in the middle of that request, and another one is started.',
  )
  const { runId, held } = await runUntilHeld(stage, sandbox, like)
  await killWorker(stage, `The provider holds “${held.path}” open.`)
  await startWorker(stage)
  return finishScene(stage, { name: 'killed', runId, held, expected: 2 })
}

/** SIGKILL after the answer was stored, before the activity could say that it is done. */
export async function playKilledAfterAnswer(stage: Stage, sandbox: SandboxControl, like: Evidence): Promise<Evidence> {
  const { screen, stack } = stage
  printText(
    screen,
    'Once more, a moment later: the network between worker and Temporal is cut, the provider answers, the answer is ' +
      'stored and paid, and the worker dies before it could say that the activity is done.',
  )
  const { runId, held, holdId } = await runUntilHeld(stage, sandbox, like)
  stack.cable.unplug()
  await sandbox.release(holdId)
  await until(`“${held.path}” is answered`, async () => (await callsOf(stage, runId)).find(isAnswered(held.id)))
  await killWorker(stage, `“${held.path}” is answered and stored; Temporal does not know.`)
  stack.cable.cut()
  stack.cable.plug()
  await startWorker(stage)
  return finishScene(stage, { name: 'killed-after-answer', runId, held, expected: 1 })
}

/** Starts a run whose last call the provider holds open; all calls before it are answered when this returns. */
async function runUntilHeld(stage: Stage, sandbox: SandboxControl, like: Evidence) {
  const callsBefore = like.report.calls.length - 1
  const notice = await listenForHold()
  try {
    const holdId = await sandbox.armHold({ afterRequests: callsBefore, notifyUrl: notice.url })
    const { id: runId } = await startRun(stage, { direct: ampleDirect(stage.model), onExhausted: 'cancel' })
    await waitingFor(stage.screen, 'The run works', () =>
      Promise.race([notice.arrived, fail(DEADLINE_MS, 'the provider did not hold a request')]),
    )
    const held = await until('all calls but the held one are answered', async () => {
      const calls = await callsOf(stage, runId)
      const open = calls.filter(({ state }) => state === 'open')
      return open.length === 1 && calls.length > callsBefore ? open[0] : undefined
    })
    return { runId, held, holdId }
  } finally {
    await notice.close()
  }
}

async function killWorker(stage: Stage, why: string): Promise<void> {
  const { screen, worker } = stage
  worker.kill('SIGKILL')
  await worker.exited
  screen.line(screen.paint('red', `${why} SIGKILL to the worker, process ${worker.pid}.`))
}

async function startWorker(stage: Stage): Promise<void> {
  stage.worker = await waitingFor(stage.screen, 'Starting another worker', () => stage.stack.startWorker())
  printText(
    stage.screen,
    `Another worker is up, process ${stage.worker.pid}. Both the dead one's lease (10 s) and its heartbeat to Temporal ` +
      '(10 s) must run out first. The whole story of the run:',
  )
}

async function finishScene(
  stage: Stage,
  scene: { readonly name: SceneName; readonly runId: string; readonly held: CallReport; readonly expected: number },
): Promise<Evidence> {
  const { screen } = stage
  const { name, runId, held, expected } = scene
  const { run } = await waitingFor(screen, 'Waiting for the dead worker to be missed', () => watchRun(stage, runId))
  requireState(run.state, 'completed', run.detail)
  const evidence = await gatherEvidence(stage, name, run)
  const answers = Object.entries(evidence.providerAnswersByCallKey ?? {})
  const wrong = answers.find(([id, count]) => count !== (id === held.id ? expected : 1))
  if (wrong) throw new Error(`The provider began to answer the call ${wrong[0]} ${wrong[1]} times.`)
  const times = expected === 1 ? 'once each: zero repeats' : `twice for “${held.path}”, once for every other call`
  printText(screen, `\nThe provider's log: it began to answer ${times}.`)
  printRequests(screen, evidence.report, (await requestsOf(stage, evidence.report)) ?? [])
  const call = evidence.report.calls.find(({ id }) => id === held.id)
  screen.line(`\nThe report about “${held.path}”:`)
  if (call) printCalls(screen, { model: evidence.report.model, calls: [call] })
  await printProof(stage, evidence)
  return evidence
}

async function callsOf({ api }: Stage, runId: string): Promise<readonly CallReport[]> {
  return (await api.get(`/runs/${runId}/calls`, callsSchema)).calls
}

function isAnswered(id: string): (call: CallReport) => boolean {
  return (call) => call.id === id && call.state === 'answered'
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

async function fail(afterMs: number, why: string): Promise<never> {
  await delay(afterMs, undefined, { ref: false })
  throw new Error(`After ${afterMs / 1000} s ${why}.`)
}

/** Between lines about a run, progress is lines too: one that rewrites itself would be torn apart. */
function waitingFor<Result>(screen: Screen, label: string, task: () => Promise<Result>): Promise<Result> {
  const output: ProgressOutput = { isTTY: false, write: (text) => screen.line(screen.paint('dim', text.trimEnd())) }
  return withProgress(label, task, { output, lineEveryMs: PROGRESS_EVERY_MS })
}
