import { randomBytes } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { BalanceClass } from '#contracts/names.ts'
import { writePrivateFile } from '#local/stack-state.ts'
import { z } from 'zod'
import { ApiProblem } from '#client/api-problem.ts'
import { PurserClient } from '#client/purser-client.ts'
import { stackFolder } from './up-state.ts'

const accountSchema = z.object({ projectId: z.uuid(), projectName: z.string(), walletId: z.uuid(), key: z.string() })

/** The local stack's own project, with its wallet and a key. */
export type LocalAccount = z.infer<typeof accountSchema>

const PROJECT = 'local'
const CURRENCY = 'USD'

/** The account of this checkout's stack, kept in its data folder; undefined when there is none yet. */
export async function findLocalAccount(env: NodeJS.ProcessEnv): Promise<LocalAccount | undefined> {
  const text = await readFile(accountPath(stackFolder(env)), 'utf8').catch(() => undefined)
  return text === undefined ? undefined : accountSchema.parse(JSON.parse(text))
}

/** Finds the account, or makes it through the API: a project, its key and its wallet. */
export async function ensureLocalAccount(
  env: NodeJS.ProcessEnv,
  operator: PurserClient,
): Promise<{ readonly account: LocalAccount; readonly isNew: boolean }> {
  const known = await findLocalAccount(env)
  if (known && (await isGood(operator.url, known))) return { account: known, isNew: false }
  const project = await createProject(operator)
  const params = { path: { id: project.id } }
  const key = await operator.post('/projects/{id}/keys', { params, body: { name: 'command line' } })
  const wallet = await operator.post('/projects/{id}/wallet', { params, body: null })
  if (key.secret === undefined) throw new Error('The API made a key and did not show its secret.')
  const account = { projectId: project.id, projectName: project.name, walletId: wallet.id, key: key.secret }
  await writePrivateFile(accountPath(stackFolder(env)), JSON.stringify(account, undefined, 2))
  return { account, isNew: true }
}

/** Puts money into the account's wallet, as an operator. The reference is the payment's own number. */
export async function depositInto(
  operator: PurserClient,
  account: LocalAccount,
  deposit: { readonly balanceClass: BalanceClass; readonly amount: string; readonly reference: string },
): Promise<void> {
  const { balanceClass, amount, reference } = deposit
  await operator.post('/deposits', {
    body: { walletId: account.walletId, balanceClass, amount: { amount, currency: CURRENCY }, reference },
  })
}

/** A key whose database was removed opens nothing. */
async function isGood(url: string, account: LocalAccount): Promise<boolean> {
  try {
    await new PurserClient(url, account.key).get('/projects/{id}', { params: { path: { id: account.projectId } } })
    return true
  } catch (error) {
    if (error instanceof ApiProblem) return false
    throw error
  }
}

async function createProject(operator: PurserClient) {
  try {
    return await operator.post('/projects', { body: { name: PROJECT } })
  } catch (error) {
    if (!(error instanceof ApiProblem) || error.problem.code !== 'already_exists') throw error
    const name = `${PROJECT}-${randomBytes(3).toString('hex')}` // its key was lost with the file
    return await operator.post('/projects', { body: { name } })
  }
}

function accountPath(dataDir: string): string {
  return join(dataDir, 'account.json')
}
