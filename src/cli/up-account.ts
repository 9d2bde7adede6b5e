import { randomBytes } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { newKeySchema } from '#contracts/api-key.ts'
import { projectSchema } from '#contracts/api-project.ts'
import { depositSchema, walletSchema } from '#contracts/api-wallet.ts'
import type { BalanceClass } from '#contracts/names.ts'
import { writePrivateFile } from '#local/stack-state.ts'
import { z } from 'zod'
import { ApiClient, ApiProblem } from './api-client.ts'
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
  operator: ApiClient,
): Promise<{ readonly account: LocalAccount; readonly isNew: boolean }> {
  const known = await findLocalAccount(env)
  if (known && (await isGood(operator.url, known))) return { account: known, isNew: false }
  const project = await createProject(operator)
  const { body: key } = await operator.post(`/projects/${project.id}/keys`, {
    body: { name: 'command line' },
    schema: newKeySchema,
  })
  const { body: wallet } = await operator.post(`/projects/${project.id}/wallet`, { schema: walletSchema })
  if (key.secret === undefined) throw new Error('The API made a key and did not show its secret.')
  const account = { projectId: project.id, projectName: project.name, walletId: wallet.id, key: key.secret }
  await writePrivateFile(accountPath(stackFolder(env)), JSON.stringify(account, undefined, 2))
  return { account, isNew: true }
}

/** Puts money into the account's wallet, as an operator. The reference is the payment's own number. */
export async function depositInto(
  operator: ApiClient,
  account: LocalAccount,
  deposit: { readonly balanceClass: BalanceClass; readonly amount: string; readonly reference: string },
): Promise<void> {
  const { balanceClass, amount, reference } = deposit
  await operator.post('/deposits', {
    body: { walletId: account.walletId, balanceClass, amount: { amount, currency: CURRENCY }, reference },
    schema: depositSchema,
  })
}

/** A key whose database was removed opens nothing. */
async function isGood(url: string, account: LocalAccount): Promise<boolean> {
  try {
    await new ApiClient(url, account.key).get(`/projects/${account.projectId}`, projectSchema)
    return true
  } catch (error) {
    if (error instanceof ApiProblem) return false
    throw error
  }
}

async function createProject(operator: ApiClient) {
  try {
    return (await operator.post('/projects', { body: { name: PROJECT }, schema: projectSchema })).body
  } catch (error) {
    if (!(error instanceof ApiProblem) || error.problem.code !== 'already_exists') throw error
    const name = `${PROJECT}-${randomBytes(3).toString('hex')}` // its key was lost with the file
    return (await operator.post('/projects', { body: { name }, schema: projectSchema })).body
  }
}

function accountPath(dataDir: string): string {
  return join(dataDir, 'account.json')
}
