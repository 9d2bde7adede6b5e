import { runSchema } from '#contracts/api-run.ts'
import { printOutput } from '../print-answer.ts'
import { printReport } from '../print-report.ts'
import { ampleDirect, shortCredit, tightDirect } from './envelope-sizes.ts'
import { printProof, printRequests } from './proof.ts'
import { printWallet } from './set-up.ts'
import {
  type Evidence,
  gatherEvidence,
  pocketsOf,
  printText,
  requestsOf,
  type Stage,
  startRun,
  watchRun,
} from './stage.ts'

/** Enough money: retries, a fallback and a change from credit to direct on the way to an answer. */
export async function playPlain(stage: Stage): Promise<Evidence> {
  const { screen, model, question } = stage
  const direct = ampleDirect(model)
  const credit = shortCredit(model, question)
  const routes = model.routes.map(({ name, balanceClass }) => `${name} (${balanceClass})`).join(', then ')
  printText(screen, `Question: ${question}`)
  printText(
    screen,
    `Asked of the catalog model “${model.name}”: ${routes}. Envelope: ${direct} USD direct` +
      (credit === undefined ? '.' : ` and ${credit} USD credit, which cannot last.`),
  )
  const started = await startRun(stage, { direct, credit, onExhausted: 'cancel' })
  const { run } = await watchRun(stage, started.id)
  requireState(run.state, 'completed', run.detail)
  screen.line(`\n${screen.paint('bold', 'The answer')}`)
  printOutput(screen, run.output)
  screen.line(
    `\n${screen.paint('bold', 'The cost report')}, in USD; of each request the worst case is held before it is sent`,
  )
  const evidence = await gatherEvidence(stage, 'plain', run)
  printReport(screen, evidence.report)
  await printProof(stage, evidence)
  return evidence
}

/** Too little money, and a person who adds some. */
export async function playPaused(stage: Stage, like: Evidence): Promise<Evidence> {
  const { screen, api, model } = stage
  const direct = tightDirect(model, like.report)
  const more = ampleDirect(model)
  printText(screen, `The same question with only ${direct} USD direct, and onExhausted: pause.`)
  const started = await startRun(stage, { direct, onExhausted: 'pause' })
  const { run: paused, lastEventId } = await watchRun(stage, started.id, { stopsAtPause: true })
  requireState(paused.state, 'paused', paused.detail)
  const before = await requestsOf(stage, await gatherEvidence(stage, 'paused', paused).then(({ report }) => report))
  screen.line(screen.paint('dim', `POST /api/v1/runs/${started.id}/top-up ← ${more} USD direct`))
  await api.post(`/runs/${started.id}/top-up`, { body: { pockets: pocketsOf({ direct: more }) }, schema: runSchema })
  const { run } = await watchRun(stage, started.id, { after: lastEventId })
  requireState(run.state, 'completed', run.detail)
  const evidence = await gatherEvidence(stage, 'paused', run)
  const requests = await requestsOf(stage, evidence.report)
  if (requests && before) {
    const finished = new Set(before.flatMap(({ begun, callKey }) => (begun && callKey !== null ? [callKey] : [])))
    const repeated = requests.slice(before.length).filter(({ callKey }) => callKey !== null && finished.has(callKey))
    if (repeated.length > 0) throw new Error('A finished call was sent again after the pause.')
    printText(
      screen,
      `\n${finished.size} calls were finished before the pause. The provider's log says that none of them was sent again:`,
    )
    printRequests(screen, evidence.report, requests)
  }
  await printProof(stage, evidence)
  return evidence
}

/** Too little money, and an owner who wants it to end there. */
export async function playCancelled(stage: Stage, like: Evidence): Promise<Evidence> {
  const { screen, api, account, model } = stage
  const direct = tightDirect(model, like.report)
  printText(screen, `The same with onExhausted: cancel. Before:`)
  await printWallet(screen, api, account.projectId)
  const started = await startRun(stage, { direct, onExhausted: 'cancel' })
  const { run } = await watchRun(stage, started.id)
  requireState(run.state, 'cancelled', run.detail)
  screen.line(`\n  state   ${run.state}\n  reason  ${run.reason ?? ''}\n  detail  ${run.detail ?? ''}`)
  if (run.stop)
    screen.line(`  limit   ${run.stop.limit}: ${run.stop.needed.amount} USD needed, ${run.stop.free.amount} free`)
  screen.line(`\n${screen.paint('bold', 'The partial report')}`)
  printOutput(screen, run.output)
  screen.line()
  const evidence = await gatherEvidence(stage, 'cancelled', run)
  printReport(screen, evidence.report)
  await printProof(stage, evidence)
  printText(screen, '\nWhat was not spent is back in the wallet:')
  await printWallet(screen, api, account.projectId)
  return evidence
}

export function requireState(state: string, expected: string, detail: string | null): void {
  if (state !== expected)
    throw new Error(`The run is ${state}, not ${expected}${detail === null ? '.' : `: ${detail}`}`)
}
