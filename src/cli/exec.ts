import { setTimeout as delay } from 'node:timers/promises'
import type { RunView } from '#contracts/api-run.ts'
import { isTerminal } from '#domain/run-states.ts'
import { randomUUID } from 'node:crypto'
import { ApiProblem } from '#client/api-problem.ts'
import type { PurserClient } from '#client/purser-client.ts'
import { connectToApi } from './connection.ts'
import { askForMoney } from './exec-ask.ts'
import { StoppedCommand } from './exec-job.ts'
import { commandEnvironment, endLike, SignalRelay, startCommand, type CommandEnd } from './exec-command.ts'
import { readExecOrder, USAGE, type ExecOrder } from './exec-order.ts'
import { RunWatch } from './exec-watch.ts'
import { printReport } from './print-report.ts'
import type { Outputs, Screen } from './screen.ts'
import { StatusLine } from './status-line.ts'

/** Its books are closed within a second or so; when Temporal is away, whenever that is back. */
const CLOSING_MS = 20_000
const CLOSING_POLL_MS = 200
/** An API that is started again is back within seconds. */
const END_TRIES = 6
const END_RETRY_MS = 1_000
/** One that does not answer a try in this time is away, too. */
const END_TRY_MS = 4_000

/** Runs a command inside a run of its own: it ends as the command does. */
export async function exec(args: readonly string[], { out, err }: Outputs): Promise<number> {
  const order = readExecOrder(args)
  if (order === 'help') {
    out.line(USAGE)
    return 0
  }
  const api = await connectToApi(process.env)
  const signals = new SignalRelay()
  const opened = await openRun(api, { order, signals, err })
  if ('kind' in opened) return endLike(opened)
  const { run, secret } = opened
  let end: CommandEnd
  let isEnded = false
  try {
    end = await runCommand(api, { order, run, secret, signals, err })
    const [program] = order.command
    if (end.kind === 'not_found') err.line(`purser exec: There is no command ${program}.`)
    if (end.kind === 'not_started') err.line(`purser exec: ${program} could not be started: ${end.detail}`)
  } finally {
    isEnded = await endRun(api, run.id, { signals, err })
  }
  signals.close()
  if (isEnded && !order.isQuiet) await tellCost(api, run.id, err)
  return endLike(end)
}

interface Waiting {
  readonly signals: SignalRelay
  readonly err: Screen
}

/** The run and its key, or how to end when nobody waits for them any longer. */
async function openRun(
  api: PurserClient,
  { order, signals, err }: Waiting & { readonly order: ExecOrder },
): Promise<{ readonly run: RunView; readonly secret: string } | CommandEnd> {
  try {
    const { run, key } = await api.postAsItIs('/runs/external', {
      body: order.request,
      idempotencyKey: randomUUID(),
      signal: signals.gaveUp,
    })
    if (key.secret === undefined) throw new Error('The API gave no key for the run.')
    return { run, secret: key.secret }
  } catch (error) {
    signals.close()
    if (!signals.gaveUp.aborted || signals.early === undefined) throw error
    err.line(`purser exec: ${api.url} has not answered. A run that it opens all the same ends once it has been idle.`)
    return { kind: 'signalled', signal: signals.early }
  }
}

interface Execution {
  readonly order: ExecOrder
  readonly run: RunView
  readonly secret: string
  readonly signals: SignalRelay
  readonly err: Screen
}

async function runCommand(api: PurserClient, execution: Execution): Promise<CommandEnd> {
  const { order, run, secret, signals, err } = execution
  if (signals.early !== undefined) return { kind: 'signalled', signal: signals.early }
  const { model, isQuiet } = order
  const env = commandEnvironment(process.env, { id: run.id, url: api.url, secret, model })
  const started = startCommand(order.command, env)
  if ('kind' in started) return started
  const { process: child, ended } = started
  signals.relayTo(child)
  const line = err.isTerminal && !isQuiet ? new StatusLine(process.stderr) : undefined
  const mayAsk = err.isTerminal && process.stdin.isTTY
  const stopped = new StoppedCommand(child, line)
  const watch = new RunWatch(api, run, {
    err,
    line,
    alsoLook: () => stopped.look(),
    ask: mayAsk ? (refused, asking) => askForMoney(api, { runId: run.id, child, err, ...asking }, refused) : undefined,
  })
  const end = await ended
  await watch.stop(signals.gaveUp)
  return end
}

/** From the answer on no request of it begins. One that is over already, by its deadline say, is over. False: it is not. */
async function endRun(api: PurserClient, runId: string, { signals, err }: Waiting): Promise<boolean> {
  const { gaveUp } = signals
  const params = { path: { id: runId }, header: { 'idempotency-key': randomUUID() } }
  for (let triesLeft = END_TRIES; ; triesLeft -= 1) {
    try {
      await api.post('/runs/{id}/end', {
        params,
        body: {},
        signal: AbortSignal.any([gaveUp, AbortSignal.timeout(END_TRY_MS)]),
      })
      return true
    } catch (error) {
      const isRefused = error instanceof ApiProblem && error.status < 500
      if (isRefused && error.problem.code === 'run_finished') return true
      if (isRefused || triesLeft === 1 || gaveUp.aborted) {
        const why = error instanceof Error ? error.message : String(error)
        err.line(`purser exec: Run ${runId} could not be ended; it ends by itself once it has been idle. ${why}`)
        err.line(`What it cost, later: purser report ${runId}`)
        return false
      }
      await delay(END_RETRY_MS, undefined, { signal: gaveUp }).catch(() => {})
    }
  }
}

/** Most calls that are listed one by one. */
const MOST_CALLS = 20

async function tellCost(api: PurserClient, runId: string, err: Screen): Promise<void> {
  try {
    const run = await closedRun(api, runId)
    const report = await api.get('/runs/{id}/report', { params: { path: { id: runId } } })
    err.line(`\n${err.paint('bold', 'Cost report')}`)
    const { calls } = report
    printReport(err, { ...report, calls: calls.length > MOST_CALLS ? [] : calls })
    if (calls.length > MOST_CALLS) err.line(`  ${calls.length} calls, each with its attempts: purser report ${runId}`)
    err.line(`Run ${runId}: ${run.state}${run.detail === null ? '' : `, ${run.detail}`}`)
  } catch (error) {
    err.line(`purser exec: ${error instanceof Error ? error.message : String(error)} Later: purser report ${runId}`)
  }
}

async function closedRun(api: PurserClient, runId: string): Promise<RunView> {
  for (const deadline = performance.now() + CLOSING_MS; ; await delay(CLOSING_POLL_MS)) {
    const run = await api.get('/runs/{id}', { params: { path: { id: runId } } })
    if (isTerminal(run.state) || performance.now() > deadline) return run
  }
}
