import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { anchorLinesIn } from '#calls/seal-anchor.ts'
import { sealPublicKeys } from '#db/seal-key.ts'
import { readState } from '#db/verify-state.ts'
import type { VerifyOptions } from '#db/verify.ts'
import { sealFilesOf } from '#local/stack-folder.ts'
import { loadVerifyConfig } from '../config.ts'
import { findStack, stackFolder } from './up-state.ts'

/** What is kept outside the database and that it is held against. */
export type Evidence = Pick<VerifyOptions, 'anchor' | 'publicKeys'>

export interface VerifyTarget {
  readonly databaseUrl: string
  readonly evidence: Evidence
  readonly stateFile: string
}

/** What the command line names; it comes before the environment, and that before the local stack. */
export interface NamedFiles {
  readonly anchor: string | undefined
  readonly publicKey: string | undefined
  readonly state: string | undefined
}

const STATE_FILE = 'purser-verify.json'

/** Which database to verify, and against what. @throws when there is none, or a file that was named cannot be read */
export async function findTarget(env: NodeJS.ProcessEnv, files: NamedFiles): Promise<VerifyTarget> {
  const config = loadVerifyConfig(env)
  if (config.databaseUrl !== undefined) {
    const evidence = await readEvidence({
      anchorFile: files.anchor ?? config.anchorFile,
      publicKeyFile: files.publicKey ?? config.publicKeyFile,
    })
    return { databaseUrl: config.databaseUrl, evidence, stateFile: files.state ?? STATE_FILE }
  }
  const stack = await findStack(env)
  if (!stack) {
    throw new Error(
      'No Purser is running here. Start one with `npm run dev` in another terminal, or set PURSER_DATABASE_URL to its database.',
    )
  }
  const folder = stackFolder(env)
  const own = await evidenceOfStack(folder)
  const named = await readEvidence({ anchorFile: files.anchor, publicKeyFile: files.publicKey })
  return {
    databaseUrl: stack.databaseUrl,
    evidence: { ...own, ...named },
    stateFile: files.state ?? join(folder, STATE_FILE),
  }
}

/** The key and the anchor that a local stack keeps in its data folder, as far as they are there. */
export async function evidenceOfStack(dataDir: string): Promise<Evidence> {
  const { keyFile, anchorFile } = sealFilesOf(dataDir)
  const [key, anchor] = await Promise.all([readIfThere(keyFile), readIfThere(anchorFile)])
  return {
    ...(key !== undefined && { publicKeys: sealPublicKeys(key) }),
    ...(anchor !== undefined && {
      anchor: parseNamed(anchor, { path: anchorFile, what: 'the anchor' }, anchorLinesIn),
    }),
  }
}

async function readEvidence(files: {
  readonly anchorFile: string | undefined
  readonly publicKeyFile: string | undefined
}): Promise<Evidence> {
  const { anchorFile, publicKeyFile } = files
  return {
    ...(anchorFile !== undefined && { anchor: await readNamed(anchorFile, 'the anchor', anchorLinesIn) }),
    ...(publicKeyFile !== undefined && {
      publicKeys: await readNamed(publicKeyFile, 'the public key', sealPublicKeys),
    }),
  }
}

/** What an earlier verification has recorded; undefined when there is no such file yet. */
export async function readStateFile(path: string): Promise<VerifyOptions['since']> {
  const text = await readIfThere(path)
  return text === undefined
    ? undefined
    : parseNamed(text, { path, what: 'the state of the last verification' }, readState)
}

async function readNamed<Value>(path: string, what: string, parse: (text: string) => Value): Promise<Value> {
  return parseNamed(await readFile(path, 'utf8'), { path, what }, parse)
}

function parseNamed<Value>(
  text: string,
  { path, what }: { readonly path: string; readonly what: string },
  parse: (text: string) => Value,
): Value {
  try {
    return parse(text)
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause)
    throw new Error(`${path} cannot be read as ${what}: ${reason}.`, { cause })
  }
}

async function readIfThere(path: string): Promise<string | undefined> {
  return readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined
    throw error
  })
}
