import { collectFolder, collectInstalled } from '#tools/sources.ts'
import { withProgress } from '#local/progress.ts'
import type { Stack } from '#local/stack.ts'
import { randomUUID } from 'node:crypto'
import { fileURLToPath } from 'node:url'
import { ApiProblem } from '#client/api-problem.ts'
import { PurserClient } from '#client/purser-client.ts'
import { uploadCorpus, type UploadOptions } from '../corpus-upload.ts'
import { printTable } from '../print-table.ts'
import type { Screen } from '../screen.ts'
import { printLinks } from '../up.ts'
import { depositInto, ensureLocalAccount } from '../up-account.ts'
import { ampleDirect, shortCredit, times } from './envelope-sizes.ts'
import { readNano } from './ledger-total.ts'
import { SandboxControl } from './sandbox-control.ts'
import type { Model, Stage } from './stage.ts'

const INSTALLED = fileURLToPath(new URL('../../../node_modules', import.meta.url))
const MODEL = 'research'

export interface Topic {
  readonly question: string
  /** The documentation of the installed packages, when left out. */
  readonly sources: string | undefined
}

/** Makes (or finds) the project with its key and wallet, deposits, and has the documents indexed: all through the API. */
export async function setUp(stack: Stack, screen: Screen, topic: Topic): Promise<Stage> {
  printLinks(screen, stack)
  if (stack.isOperatorKeyNew) screen.line(`  operator key   ${stack.operatorKey} (made now, shown once)`)
  const operator = new PurserClient(stack.apiUrl, stack.operatorKey)
  const { account, isNew } = await ensureLocalAccount(process.env, operator)
  const api = new PurserClient(stack.apiUrl, account.key)
  const verb = isNew ? 'The operator key has made' : 'From an earlier start there are'
  screen.line(`\n${verb} the project “${account.projectName}”, its key ${account.key.slice(0, 14)}… and its wallet.`)

  const { model, simpleModel } = await readModels(api)
  const reference = `demo-${randomUUID()}`
  const direct = times(ampleDirect(model), 8n)
  const credit = times(shortCredit(model, topic.question) ?? '0.001', 10n)
  await depositInto(operator, account, { balanceClass: 'direct', amount: direct, reference: `${reference}-direct` })
  await depositInto(operator, account, { balanceClass: 'credit', amount: credit, reference: `${reference}-credit` })
  screen.line(`The operator deposits ${direct} USD direct and ${credit} USD credit. The wallet now:`)
  await printWallet(screen, api, account.projectId)
  screen.line("\nThe project's own key may do none of that:")
  for (const answer of await tryAsProject(api, account)) screen.line(`  ${answer}`)
  screen.line()

  const corpusId = await provideDocuments(api, screen, topic)
  return {
    screen,
    stack,
    operator,
    api,
    account,
    model,
    simpleModel,
    corpusId,
    question: topic.question,
    sandbox: stack.sandbox && new SandboxControl(stack.sandbox),
    worker: stack.worker,
  }
}

/** Prints a wallet. Answers what is available in it of all balances together, in nano. */
export async function printWallet(screen: Screen, api: PurserClient, projectId: string): Promise<bigint> {
  const { balances } = await api.get('/projects/{id}/wallet', { params: { path: { id: projectId } } })
  const rows = balances.map(({ balanceClass, currency, available, inEnvelopes }) => [
    `${balanceClass} ${currency}`,
    available.amount,
    inEnvelopes.amount,
  ])
  const columns = [
    { title: 'wallet' },
    { title: 'available', align: 'decimal' },
    { title: 'in envelopes', align: 'decimal' },
  ] as const
  printTable(screen, columns, rows)
  return balances.reduce((sum, { available }) => sum + readNano(available.amount), 0n)
}

async function readModels(api: PurserClient): Promise<{ readonly model: Model; readonly simpleModel: Model }> {
  const { models } = await api.get('/models')
  const model = models.find(({ name }) => name === MODEL)
  if (!model) throw new Error(`The catalog has no model ${MODEL}.`)
  return { model, simpleModel: models.find(({ routes }) => routes.length === 1) ?? model }
}

/** Tries with a project's key what only operators may do. @throws when it is let through */
async function tryAsProject(api: PurserClient, { projectId, walletId }: Stage['account']): Promise<readonly string[]> {
  const amount = { amount: '1', currency: 'USD' }
  const attempts = [
    { path: '/projects', body: { name: 'mine' } },
    { path: '/projects/{id}/keys', body: { name: 'mine' } },
    { path: '/projects/{id}/wallet', body: {} },
    { path: '/deposits', body: { walletId, balanceClass: 'direct', amount, reference: 'mine' } },
  ] as const
  const answers = await Promise.all(
    attempts.map(async ({ path, body }) => {
      const status = await api.postAsItIs(path, { path: { id: projectId }, body }).then(
        () => 200,
        (error: unknown) => (error instanceof ApiProblem ? error.status : 0),
      )
      if (status !== 403) throw new Error(`POST ${path} with a project's key was answered ${status}, not 403.`)
      return `POST ${path} → ${status}`
    }),
  )
  return answers
}

async function provideDocuments(api: PurserClient, screen: Screen, { sources }: Topic): Promise<string> {
  const what = sources === undefined ? 'the documentation of every installed package' : sources
  const { documents, corpus } = await withProgress(`Collecting and indexing ${what}`, async (say) => {
    const collected = await (sources === undefined ? collectInstalled(INSTALLED) : collectFolder(sources))
    if (collected.documents.length === 0) throw new Error(`There is no *.md, *.mdx or *.txt file in ${what}.`)
    const onUpload: UploadOptions['onUpload'] = ({ done, total }) => say(`part ${done + 1} of ${total}`)
    return { documents: collected.documents, corpus: await uploadCorpus(api, collected.documents, { onUpload }) }
  })
  const size = sizeOf(documents.reduce((sum, { text }) => sum + text.length, 0))
  const when = corpus.isKnown ? 'indexed before' : 'indexed now'
  screen.line(`Documents: ${what}, ${documents.length} of them, ${size}, ${when}.`)
  return corpus.corpusId
}

function sizeOf(characters: number): string {
  return characters < 1_000_000 ? `${Math.ceil(characters / 1_000)} kB` : `${(characters / 1_000_000).toFixed(1)} MB`
}
