import type { RunView } from '#contracts/api-run.ts'
import { formatNano } from '#domain/money.ts'
import { printOutput, readOutput } from '../print-answer.ts'
import { printReport } from '../print-report.ts'
import { ampleDirect, shortCredit, tightDirect } from './envelope-sizes.ts'
import { printProof, printRequests } from './proof.ts'
import { printWallet } from './set-up.ts'
import {
  type Evidence,
  gatherEvidence,
  type Model,
  pocketsOf,
  printText,
  requestsOf,
  requireState,
  type SceneName,
  type Stage,
  startRun,
  watchRun,
} from './stage.ts'

/** Enough money: retries, fallbacks and a change from credit to direct on the way to an answer. */
export async function playPlain(stage: Stage): Promise<Evidence> {
  const { screen, model, question } = stage
  const direct = ampleDirect(model)
  const credit = shortCredit(model, question)
  screen.line(`Question   ${screen.paint('bold', question)}`)
  screen.line(`Model      “${model.name}”: ${describeRoutes(model)}`)
  screen.line('Calls      plan the searches, read what each of them found (read/0, read/1, …), write the answer')
  const short = credit === undefined ? '' : ` + ${credit} USD credit, which will run out`
  screen.line(`Envelope   ${direct} USD direct${short}\n`)
  const started = await startRun(stage, { model, direct, credit, onExhausted: 'cancel' })
  const { run } = await watchRun(stage, started.id)
  requireState(run, 'completed')
  screen.line(`\n${screen.paint('bold', 'The answer')}`)
  printOutput(screen, run.output)
  await checkQuotes(stage, run.output)
  screen.line(
    `\n${screen.paint('bold', 'The cost report')}, in USD. The worst case of each request is held before it is sent.`,
  )
  const evidence = await gatherEvidence(stage, 'plain', run)
  printReport(screen, evidence.report)
  await printProof(stage, evidence)
  return evidence
}

/** So that the readings of a run follow each other, as they do with a provider that takes its time. */
const SLOW_ANSWER_MS = 400

/** Too little money, and a person who adds some. */
export async function playPaused(stage: Stage, like: Evidence): Promise<Evidence> {
  const { screen, api, simpleModel: model } = stage
  const direct = tightDirect(model, like.report)
  const more = ampleDirect(model)
  screen.line(`Model      “${model.name}”: ${describeRoutes(model)}`)
  screen.line(`Envelope   ${direct} USD direct, onExhausted: pause\n`)
  await setPace(stage, SLOW_ANSWER_MS)
  const started = await startRun(stage, { model, direct, onExhausted: 'pause' })
  const { run: paused, lastEventId } = await watchRun(stage, started.id, { stopsAtPause: true })
  if (paused.state === 'completed' && !stage.sandbox) return tellLuck(stage, 'paused', paused)
  requireState(paused, 'paused')
  const { report: reportBefore } = await gatherEvidence(stage, 'paused', paused)
  const before = await requestsOf(stage, reportBefore)

  screen.line(screen.paint('dim', `POST /api/v1/runs/${started.id}/top-up ← ${more} USD direct`))
  await api.post('/runs/{id}/top-up', {
    params: { path: { id: started.id } },
    body: { pockets: pocketsOf({ direct: more }) },
  })
  const { run } = await watchRun(stage, started.id, { after: lastEventId })
  requireState(run, 'completed')
  const evidence = await gatherEvidence(stage, 'paused', run)
  const requests = await requestsOf(stage, evidence.report)
  if (requests && before) {
    const finished = new Set(reportBefore.calls.filter(({ state }) => state === 'answered').map(({ id }) => id))
    const repeated = requests.slice(before.length).filter(({ callKey }) => callKey !== null && finished.has(callKey))
    if (repeated.length > 0) throw new Error('A finished call was sent again after the pause.')
    screen.line(`\nFinished before the pause: ${finished.size} calls. The provider's log: none of them was sent again.`)
    printRequests(screen, evidence.report, requests)
  }
  await printProof(stage, evidence)
  return evidence
}

/** Too little money, and an owner who wants it to end there. */
export async function playCancelled(stage: Stage, like: Evidence): Promise<Evidence> {
  const { screen, api, account, simpleModel: model } = stage
  const direct = tightDirect(model, like.report)
  screen.line(`Envelope   ${direct} USD direct, onExhausted: cancel\n`)
  const before = await printWallet(screen, api, account.projectId)
  const started = await startRun(stage, { model, direct, onExhausted: 'cancel' })
  const { run } = await watchRun(stage, started.id)
  await setPace(stage, 0)
  if (run.state === 'completed' && !stage.sandbox) return tellLuck(stage, 'cancelled', run)
  requireState(run, 'cancelled')
  screen.line(`\n  state    ${run.state}\n  reason   ${run.reason ?? ''}`)
  if (run.stop)
    screen.line(`  limit    ${run.stop.limit}: ${run.stop.needed.amount} USD needed, ${run.stop.free.amount} free`)
  screen.line(`\n${screen.paint('bold', 'The partial answer')}`)
  printOutput(screen, run.output)
  screen.line(`\n${screen.paint('bold', 'The partial report')}`)
  const evidence = await gatherEvidence(stage, 'cancelled', run)
  printReport(screen, evidence.report)
  await printProof(stage, evidence)
  screen.line('\nThe remainder is back in the wallet:')
  const after = await printWallet(screen, api, account.projectId)
  const gone = before - after
  if (formatNano(gone) !== evidence.transferTotal.total)
    throw new Error('The wallet lost another amount than was spent.')
  screen.line(`  It has ${formatNano(gone)} less than before: exactly what was spent.`)
  return evidence
}

/** Unlike the sandbox, a model may answer the same question with fewer tokens than the time before. */
function tellLuck(stage: Stage, name: SceneName, run: RunView): Promise<Evidence> {
  printText(stage.screen, '\nThis time the run needed less than the first one, and the money did not end.')
  return gatherEvidence(stage, name, run)
}

async function setPace({ sandbox, simpleModel }: Stage, answerMs: number): Promise<void> {
  for (const { upstreamModel } of simpleModel.routes) await sandbox?.slowDown(upstreamModel, answerMs)
}

/** Looks every citation up. @throws when a quote does not stand in the passage that it names */
async function checkQuotes({ api, screen, corpusId }: Stage, output: unknown): Promise<void> {
  const citations = readOutput(output)?.citations ?? []
  for (const { n, passageId, quote } of citations) {
    const { text } = await api.get('/corpora/{id}/passages/{passageId}', {
      params: { path: { id: corpusId, passageId } },
    })
    if (!wordsOf(text).includes(wordsOf(quote)))
      throw new Error(`The quote of citation ${n} does not stand in its passage.`)
  }
  if (citations.length === 0) return
  const each = citations.length === 1 ? 'The quote' : `Each of the ${citations.length} quotes`
  const where = 'GET /api/v1/corpora/{id}/passages/{id}'
  printText(screen, `\n${each} was looked up in its passage (${where}) and stands there word for word.`)
}

/** The words alone: a quote may leave line breaks and Markdown marks out. */
function wordsOf(text: string): string {
  const lines = text.replaceAll(/^\s*\d+[.)]\s/gm, '')
  return (lines.match(/[\p{L}\p{N}]+/gu) ?? []).join(' ')
}

function describeRoutes({ routes }: Model): string {
  return routes.map(({ name, balanceClass }) => `${name} (${balanceClass})`).join(', then ')
}
