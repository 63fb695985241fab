# Makes this Windows machine trust the container registry @NAME@: its own certificate authority is given to the
# system's store, where Docker Desktop, curl.exe, crane and oras look.
#
#   powershell -ExecutionPolicy Bypass -File trust.ps1            do it; what is done already stays as it is
#   ... trust.ps1 -DryRun                                         only say what would be done
#   ... trust.ps1 -Undo                                           take it back
#
# As administrator it is for everybody on this machine, otherwise for this user (Windows asks first).
# The authority can vouch for private names and addresses and for those of the registry's machine, and for nothing else.
param([switch]$DryRun, [switch]$Undo)
$ErrorActionPreference = 'Stop'

$pem = @'
@CA@
'@
$base64 = ($pem -split "`n" | Where-Object { $_ -notmatch '-----' }) -join ''
$bytes = [Convert]::FromBase64String($base64.Trim())
$authority = New-Object System.Security.Cryptography.X509Certificates.X509Certificate2(, $bytes)

$identity = New-Object Security.Principal.WindowsPrincipal([Security.Principal.WindowsIdentity]::GetCurrent())
$isAdministrator = $identity.IsInRole([Security.Principal.WindowsBuiltInRole]::Administrator)
$location = if ($isAdministrator) { 'LocalMachine' } else { 'CurrentUser' }
$store = New-Object System.Security.Cryptography.X509Certificates.X509Store('Root', $location)
$store.Open($(if ($DryRun) { 'ReadOnly' } else { 'ReadWrite' }))
try {
    $known = @($store.Certificates | Where-Object { $_.Thumbprint -eq $authority.Thumbprint }).Count -gt 0
    if ($Undo) {
        if (-not $known) { Write-Output 'there is nothing to take back'; return }
        if ($DryRun) { Write-Output "would remove $($authority.Subject) from $location\Root"; return }
        $store.Remove($authority)
        Write-Output "done: this machine does not trust @FIRST@ any more (restart Docker Desktop)"
        return
    }
    if ($known) { Write-Output "is there: $($authority.Subject) in $location\Root" }
    elseif ($DryRun) { Write-Output "would add $($authority.Subject) to $location\Root"; return }
    else {
        $store.Add($authority)
        Write-Output "added: $($authority.Subject) to $location\Root"
    }
    Write-Output 'Docker Desktop sees it after a restart of Docker Desktop. Then: docker push @FIRST@/app:v1'
}
finally { $store.Close() }
